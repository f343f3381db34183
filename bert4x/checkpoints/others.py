"""Models of others by the names of their tensors: what each is, and what to do."""

MERGED = "PeftModel.from_pretrained(base, folder).merge_and_unload().save_pretrained(target)"
# The names of a family here, but something was done to its weights: never read as if it had not been.
ALTERED = (
    (
        r"\.(lora_[AB]|lora_embedding_[AB]|base_layer|ia3_l|hada_w1_a|oft_r)\b|\.modules_to_save\.",
        "the adapters of PEFT (LoRA, say) lie beside the matrices that they change: merge them first, " + MERGED,
    ),
    (
        r"\.(qweight|qzeros|g_idx|SCB|absmax|quant_map|quant_state\S*|_packed_params\S*)$",
        "its weights are quantized (bitsandbytes, GPTQ, AWQ, PyTorch): take the checkpoint they were made of",
    ),
    (
        r"\.weight_(orig|mask)$|\.parametrizations\.",
        "its weights are the parts of a parametrization (pruning, say): make them whole first, "
        "torch.nn.utils.prune.remove or torch.nn.utils.parametrize.remove_parametrizations",
    ),
)
HOLLOW = (
    "it holds tensors without values, as a training with DeepSpeed's ZeRO 3 saves them: join the weights with the "
    "script zero_to_fp32.py, which DeepSpeed leaves in its folder, or set stage3_gather_16bit_weights_on_model_save"
)
OBJECTS = (
    "an object-based checkpoint of TensorFlow 2, but not of a model of bert4keras, whose layers are named "
    "Embedding-Token ...; its variables are {} ... Load it with the code that wrote it, and save it in Hugging Face's "
    "layout or as a TensorFlow 1 checkpoint"
)
# Other architectures and toolkits, for the message where no family fits.
OTHERS = (
    (
        r"(^|\.)embedding\.(word_embedding|word\.embedding)\.weight$|(^|\.)encoder\.transformer\.\d+\.self_attn\.",
        "These are the names of UER-py and TencentPretrain, of whose models BERT, ALBERT and GPT2 are read: convert "
        "the file with their scripts first; most of UER's models are on Hugging Face's hub, converted, under uer/",
    ),
    (r"(^|\.)encoder\.layers\.\d+\.self_attn\.(q|k|v)_proj\.", "These are the names of BART, or of PaddleNLP's BERT"),
    (r"(^|\.)layers\.\d+\.self_attn\.q_proj\.", "This is a Llama, or a model built like it"),
    (
        r"\.self_attention\.linear_qkv\.",
        "These are the names of Megatron core: convert the checkpoint with the tools of Megatron-LM",
    ),
    (
        r"\.attention\.query_key_value\.|\.self_attention\.query_key_value\.",
        "These are Megatron-LM's names, of whose models GPT2 and BERT are read",
    ),
    (r"(^|\.)distilbert\.|(^|\.)transformer\.layer\.\d+\.attention\.q_lin\.", "This is a DistilBERT"),
    (r"(^|\.)sentence_encoder\.", "These are fairseq's names: convert the file with transformers first"),
)

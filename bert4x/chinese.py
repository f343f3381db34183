"""What people read in a terminal and on cards, in Chinese where the locale is: help of the commands, lines and cards of
runs.

Messages of errors stay as they are, so that they can be looked up.
"""

# ruff: noqa: E501  # a table of texts

import argparse
import os
import re
import unicodedata

DEFAULT = re.compile(r"(?P<said>.*?)(?: \(default: (?P<value>.*)\))?", re.S)
HELP = {
    # of argparse
    "positional arguments": "参数",
    "options": "选项",
    "show this help message and exit": "显示这些说明并退出",
    "show program's version number and exit": "显示版本号并退出",
    # of several commands
    "Pretrained Chinese language models in Keras 3.": "用 Keras 3 跑中文预训练语言模型。",
    "for machines": "输出 JSON，供程序读取",
    "a checkpoint": "权重：路径或名字",
    "the model inside the package": "包里自带的模型",
    "a line break": "换行",
    "texts at once": "一次处理几个文本",
    "texts; without any, the lines of standard input": "文本；不给就读标准输入，一行一个",
    "one object a text": "每个文本输出一个 JSON 对象",
    "decoding": "解码",
    # inspect, convert, verify
    "what is in a checkpoint: format, family, config, tensors, what is missing": "看权重里有什么：格式、模型、配置、张量、缺了什么",
    "a folder, a file, the prefix of a TensorFlow checkpoint, or a name": "文件夹、文件、TensorFlow 权重的前缀，或名字",
    "the config file, if it does not lie beside the weights": "配置文件，如果不在权重旁边",
    "for weights whose names are those of several families": "权重的名字同时符合几种模型时，指定是哪一种",
    "everything, for machines": "以 JSON 输出全部内容，供程序读取",
    "write a checkpoint in another format, bit for bit": "把权重转成另一种格式，逐比特一致",
    "the folder to write": "要写的文件夹",
    "MODEL-FORMAT, here": "当前目录下的 MODEL-FORMAT",
    "the format": "格式",
    "cast the values; default: keep them; q8_0 is of gguf alone": "转换数值类型；默认不变；q8_0 只用于 gguf",
    "number of files (hf) or model-parallel ranks (megatron)": "文件数（hf）或模型并行的分片数（megatron）",
    "JSON list of the ids to keep, or a vocab.txt of the tokens": "要保留的 id 的 JSON 列表，或要保留的 token 的 vocab.txt",
    "leave the head of a task behind, and write the model": "不带任务的头，只写模型本身",
    "run two checkpoints on the same inputs; or read one whole, checksums and all": "用相同输入运行两份权重；只给一份则完整读一遍，并核对校验和",
    "the largest difference allowed": "允许的最大差异",
    "of the random inputs": "随机输入的种子",
    # port
    "change a script written for bert4keras into one that runs here": "把为 bert4keras 写的脚本改成能在这里运行的",
    "a Python file; it stays as it is": "Python 文件；原文件不动",
    "write SCRIPT_bert4x.py beside it, instead of printing it": "在旁边写出 SCRIPT_bert4x.py，而不是打印出来",
    # models, download, cache
    "the catalogue of published Chinese checkpoints": "公开的中文权重目录",
    "only those in whose name or notes it occurs, with all that is known of them": "只列名字或说明里有这个词的，附上已知的全部信息",
    "only those of a family: bert, albert, gpt2 ...": "只列一种模型：bert、albert、gpt2……",
    "fetch a published checkpoint; a broken transfer goes on where it stopped": "下载公开的权重；中断后从断点继续",
    "of the catalogue, OWNER/NAME, modelscope://OWNER/NAME, or an address": "目录里的名字、OWNER/NAME、modelscope://OWNER/NAME，或网址",
    "a folder other than the cache": "缓存以外的文件夹",
    "hf, hf-mirror, modelscope, a mirror's or an archive's address": "hf、hf-mirror、modelscope，或镜像、压缩包的网址",
    "a branch, tag or commit": "分支、标签或提交",
    "list, verify or remove what was fetched": "列出、校验或删除下载过的权重",
    "of one model (verify: all by default)": "某一个模型的名字（verify 默认全部）",
    "what can be done with each family, in each layout": "每个家族、每种布局能做什么",
    "for machines (list)": "输出 JSON，供程序读取（list）",
    # fill-mask, generate, chat
    "guess the [MASK] tokens of a text": "猜文本里的 [MASK]",
    'such as "床前明[MASK]光，疑是地上霜。"': "例如“床前明[MASK]光，疑是地上霜。”",
    "guesses for each mask": "每个 [MASK] 猜几个",
    "continue texts": "续写文本",
    'such as "白日依山尽，"; "-" is standard input': "例如“白日依山尽，”；“-”表示标准输入",
    "continue, or read and write": "续写（lm），或先读后写（unilm）",
    "of the weights: float32, bfloat16 ...": "权重的类型：float32、bfloat16……",
    "Keras' own": "Keras 的设置",
    "as each folder is": "由各文件夹决定",
    "the matrices: a quarter of float32's memory": "量化矩阵：内存是 float32 的四分之一",
    "show the text while it is written": "边写边显示",
    "one object a prompt: texts, ids, finish reasons, scores": "每个 prompt 输出一个 JSON 对象：文本、id、结束原因、得分",
    "tokens to write at most": "最多写几个 token",
    "no end before so many": "写满这么多之前不结束",
    "draw tokens, instead of taking the likeliest; any of the next five implies it": "按概率采样，而不是取最可能的；下面五项任意一项都表示采样",
    "below 1: safer, above 1: bolder": "小于 1 更稳妥，大于 1 更大胆",
    "draw from the K likeliest tokens": "从最可能的 K 个 token 里采样",
    "draw from the fewest tokens that together have this probability": "从概率之和达到这个值的最少几个 token 里采样",
    "draw from tokens at least so likely, relative to the likeliest": "从相对于最可能者概率不低于此值的 token 里采样",
    "the same seed, prompt and options give the same text": "种子、prompt 和选项相同，文本就相同",
    "above 1: what was written becomes less likely": "大于 1：写过的不容易再写",
    "nothing of so many tokens comes twice": "这么长的片段不出现第二次",
    "search with so many beams": "beam search 的宽度",
    "beams are compared by log p / length ** penalty": "按 log p / 长度 ** 惩罚 比较各条 beam",
    "texts for each prompt": "每个 prompt 写几个文本",
    r"end at this text, which is left out; \n is a line break; may be given several times": r"遇到这段文本就结束，它本身不输出；\n 表示换行；可以给多次",
    "try so many tokens that stood in the text before; the same greedy text, faster where it repeats": "试用前文里出现过的这么多个 token；贪心的文本不变，重复前文时更快",
    "a smaller model of the same vocabulary, whose drafts it checks; the same greedy text": "同一词表的小模型，由它起草、大模型核对；贪心的文本不变",
    "tokens of a draft, 4 unless told": "每次起草多少个 token，不说则为 4",
    "write one of these texts; may be given several times": "只写这些文本之一；可以给多次",
    "write what this regular expression matches": "只写这个正则表达式匹配的文本",
    "write JSON of this schema, itself JSON, or @FILE that holds it": "只写符合这个 schema 的 JSON；schema 本身也是 JSON，或用 @文件 给出",
    "forget the oldest tokens when the model has no more positions": "位置用完时忘掉最早的 token",
    "talk with a model; lines are read from the terminal or standard input": "与模型对话；从终端或标准输入逐行读取",
    r"one turn up to the answer; \n is a line break": r"一轮对话中回答之前的部分；\n 表示换行",
    "the model's chat template, else 问 and 答": "模型自带的对话模板；没有则用“问”和“答”",
    "the same as --model": "同 --model",
    "what the model is told first, by a chat template": "开头交代给模型的话（system），由对话模板写入",
    "whether a model that can think before it answers does": "能先思考再回答的模型，是否先思考",
    # few-shot
    "answer by the examples of a file": "按文件里的例子作答",
    "JSON, JSON lines, or tab-separated with the fields' names first": "JSON、JSON lines，或第一行是字段名、以制表符分隔的文件",
    "what to answer; default: the lines of standard input. With several fields, a JSON object each": "要回答的文本；默认读标准输入的各行。字段不止一个时，每个是一个 JSON 对象",
    r"one case; its last field is the answer; \n is a line break": r"一个例子的模板，最后一个字段是答案；\n 表示换行",
    "between cases, and end of an answer": "例子之间的分隔，也是答案的结尾",
    "choose the likeliest of these, instead of writing freely": "在这些里选最可能的，而不是自由书写",
    "compare choices by the mean of their tokens": "按每个 token 的平均得分比较选项",
    "leave out the first examples where not all fit": "放不下时去掉最前面的例子",
    # extract, predict, evaluate
    "find the triples (subject, predicate, object) that texts state": "找出文本里的三元组（主语、关系、宾语）",
    "what recipes/triple_extraction.py wrote": "recipes/triple_extraction.py 写出的文件夹",
    "a file with a text in each line": "一行一个文本的文件",
    "one object a text, with the places of characters": "每个文本输出一个 JSON 对象，带字符位置",
    "draw the triples of the texts; also pdf, svg ...": "画出文本里的三元组；也可以是 pdf、svg……",
    "write the answers of a run to all texts of a file, as JSON lines": "用训练好的任务回答文件里的每个文本，写成 JSON lines",
    "what a recipe wrote": "训练脚本写出的文件夹",
    'txt (a text a line), tsv, csv, jsonl or json; "-" is standard input': "txt（一行一个文本）、tsv、csv、jsonl 或 json；“-”表示标准输入",
    'is gone on with if it is there; "-" is standard output': "已经存在就接着写；“-”表示标准输出",
    "the first line names the columns": "第一行是列名",
    "it does not": "第一行不是列名",
    "of the text (or source): its name, or number from 1": "文本（或 source）所在的列：列名，或从 1 开始的序号",
    "of the second text, where a run is of pairs": "第二个文本所在的列，用于句对任务",
    "two texts in each row": "每行两个文本",
    "score a run on a file of examples": "用一个文件给训练好的任务打分",
    "what the recipe trains on: tsv, csv, jsonl, json, bio ...": "训练脚本所读的文件：tsv、csv、jsonl、json、bio……",
    "of the label (or target): its name, or number from 1": "标签（或 target）所在的列：列名，或从 1 开始的序号",
    "what stands between several labels": "几个标签之间的分隔符",
    "a comma": "逗号",
    "of a classifier, draw the confusion matrix": "画出分类的混淆矩阵",
    # embed, similar
    "write the vectors of all texts of a file, as an array of NumPy": "把文件里每个文本的向量写成 NumPy 数组",
    "txt (a text a line), tsv, csv, jsonl or json": "txt（一行一个文本）、tsv、csv、jsonl 或 json",
    "(N, D); is gone on with if it is there": "形状 (N, D)；已经存在就接着写",
    "of sentence vectors, or an encoder: a folder or a name": "句向量模型，或任何编码器：文件夹或名字",
    "computed at once": "一次计算多少",
    "the model's prompt to put before each text": "加在每个文本前面的 prompt 的名字",
    "only the first N numbers of each vector": "每个向量只要前 N 维",
    "the texts of a file that are nearest to a text": "文件里与一个文本最接近的文本",
    'such as "怎么申请退款"': "例如“怎么申请退款”",
    "of the corpus, that embed wrote": "embed 写出的、这个文件的向量",
    "how many": "几个",
    # export
    "write a model for ONNX Runtime, OpenVINO or TensorFlow, and compare outputs": "导出给 ONNX Runtime、OpenVINO 或 TensorFlow，并比对输出",
    "a checkpoint, its name, or the folder of a trained task": "权重、它的名字，或训练好的任务的文件夹",
    "what it computes": "计算什么",
    "that of the family": "由模型决定",
    "int8 computation (onnx), or weights as float16 (openvino)": "int8 计算（onnx），或 float16 权重（openvino）",
    "take the mask as an input, not only the padding id": "把 mask 也作为输入，而不只看 padding 的 id",
    "the largest difference allowed, as a share of the largest output": "允许的最大差异，相对于最大的输出",
    # serve
    "answer requests of HTTP: OpenAI's protocol, embeddings, tasks": "用 HTTP 回答请求：OpenAI 的协议、向量、各种任务",
    "a folder or a name, or NAME=FOLDER": "文件夹或名字，或 NAME=FOLDER",
    "the small model": "自带的小模型",
    "the address to listen at": "监听的地址",
    "0 takes any free one": "0 表示任选一个空闲的",
    "keys, one a line, of which requests must have one": "密钥文件，每行一个；请求必须带上其中一个",
    "let everybody in who can reach --host, without a key": "不要密钥，能访问 --host 的人都可以用",
    "of language models: continue, or read and write": "语言模型的用法：续写，或读后写",
    "what runs the models; all but keras take folders that bert4x export wrote": "用什么运行模型；除 keras 外都要 bert4x export 写出的文件夹",
    "limits": "限制",
    "bytes of a request": "一个请求的字节数",
    "texts of a request": "一个请求的文本数",
    "tokens of a request, those to be written included": "一个请求的 token 数，包括要写的",
    "requests that wait for a model; more are told to come later": "等一个模型的请求数；再多就请对方稍后再来",
    "seconds that a request may take": "一个请求最多用的秒数",
    "seconds that a batch waits for more texts, while many come": "请求多的时候，一批最多再等几秒",
    "texts that are written at the same time": "同时写的文本数",
    "of a language model, no second graph that generates": "语言模型不另写用来生成的图",
}
CARD = """# {task}

```python
import bert4x

task = bert4x.pipeline("{task}", "{folder}")
```

| 指标 | 值 |
|---|---|
{rows}

在 {scored} 行上评测{which}；用 {trained} 个样本训练，{updates} 次更新，{seconds:.0f} 秒，起点是{start}。{trial}

```
{command}
```

{software}
"""
TRIAL = "这是一次小规模试运行（`--smoke`），只说明它能跑通：分数不代表质量。"

# The lines that a run prints, with places for what differs.
LINES = {
    "epoch {epoch:g}/{epochs}: {scores}, {seconds:.0f} s": "第 {epoch:g}/{epochs} 轮：{scores}，{seconds:.0f} 秒",
    "{updates} updates in {seconds:.0f} s. Best weights: {scores}": "{updates} 次更新，{seconds:.0f} 秒。最好的权重：{scores}",
    "{updates} updates in {seconds:.0f} s. Best weights, after epoch {best_epoch:g}: {scores}": "{updates} 次更新，{seconds:.0f} 秒。最好的权重在第 {best_epoch:g} 轮：{scores}",
    "not scored": "没有评测",
    "weights, curves and metrics are in\n    {folder}\nto use them:\n    {use}": "权重、曲线和记录保存在\n    {folder}\n用法：\n    {use}",
    "no --train: toy data, {toy}, which show no more than that it runs": "没有 --train：用演示数据 {toy}，只说明它能跑通",
    "interrupted; --resume auto goes on from update {update}": "已中断；加上 --resume auto 从第 {update} 次更新继续",
    "going on from update {update} of {updates}": "从第 {update} 次更新（共 {updates} 次）继续",
    "{folder} holds this run, which has ended: its best weights are taken": "{folder} 里的这次训练已经结束：直接用它最好的权重",
    "skipped {count} of {rows}: {reason}": "跳过 {rows} 条中的 {count} 条：{reason}",
    "--smoke: a small trial, to show that it runs; the scores and answers above say nothing about quality": "--smoke：一次小规模试运行，只说明它能跑通；上面的分数和答案不代表质量",
    "{total:,} answers in {path}": "{total:,} 个答案，在 {path}",
}


def line(template: str, **values) -> str:
    """A line that a run prints, with its values; in Chinese where the locale is and there is one."""
    return (LINES.get(template, template) if is_wanted() else template).format(**values)


def is_wanted() -> bool:
    """Whether the locale is Chinese: the first of these variables that is set says so, as POSIX has it."""
    return next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "").lower().startswith("zh")


def translated(text: str | None) -> str | None:
    """A help string in Chinese, its default too; one that has no translation as it is."""
    if text is None:
        return None
    said, value = DEFAULT.fullmatch(text).group("said", "value")
    if said not in HELP:
        return text
    return HELP[said] + ("" if value is None else f"（默认：{HELP.get(value, value)}）")


class Formatter(argparse.HelpFormatter):
    """Breaks lines by the columns that characters take, and also between Chinese ones, among which there are no spaces."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        lines = [""]
        for word in re.findall(r"[!-~]+ ?|.", text):
            if lines[-1] and columns(lines[-1] + word.rstrip()) > width:
                lines.append("")
            lines[-1] += word
        return [line.rstrip() for line in lines]


def columns(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def translate(parser: argparse.ArgumentParser) -> None:
    """Puts the help of a parser, and of all commands in it, into Chinese."""
    parser.formatter_class = Formatter
    parser.description = translated(parser.description)
    for group in parser._action_groups:
        group.title = translated(group.title)
    for action in parser._actions:
        action.help = translated(action.help)
        if isinstance(action, argparse._SubParsersAction):
            for summary in action._choices_actions:
                summary.help = translated(summary.help)
            for sub in action.choices.values():
                translate(sub)

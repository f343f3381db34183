"""Runs bert4keras' own example scripts, which are not ours to copy, on tiny checkpoints and data.

    BERT4KERAS=CHECKOUT python tests/bert4keras_scripts.py [NAME ...]              # here, changed by `bert4x port`
    BERT4KERAS=CHECKOUT python tests/bert4keras_scripts.py --original [NAME ...]   # with bert4keras, on tf_keras

CHECKOUT is a checkout of github.com/bojone/bert4keras. Each script runs in a process of its own, or with --together all
in one, and from a folder of its own. Changed in a script are its imports and what else `bert4x port` changes by rule,
paths (/root becomes a folder of ours), and numbers in assignments of sizes: `maxlen = 256`, `epochs=50`. Outside the
script, data come in order, new layers begin with numbers that depend on their shape only, and modules that are not
installed are replaced by what a script needs of them. The first losses, or else a digest of what the model predicts, go
to results-KIND.json in --work; after both kinds `--table` prints them side by side, as in docs/bert4keras.md.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SIZES = {
    "maxlen": 48, "minlen": 4, "max_p_len": 32, "max_q_len": 12, "max_a_len": 8, "max_c_len": 32, "max_t_len": 12,
    "batch_size": 8, "epochs": 1, "steps_per_epoch": 3, "steps": 12, "converged_steps": 2, "bert_layers": 2,
    "num_hidden_layers": 1, "img_size": 32, "sequence_length": 32, "grad_accum_steps": 2, "workers": 1,
    "num_warmup_steps": 2, "num_train_steps": 6, "max_queue_size": 20,
}  # fmt: skip
EXTRA = {"task_language_model_chinese_chess": {"maxlen": 320}, "pretraining": {"batch_size": 16}}
NEEDS = {"task_sentiment_integrated_gradients": ["task_sentiment_albert"]}
TF_ONLY = {"task_iflytek_multigpu", "task_seq2seq_autotitle_multigpu"}


def scripts(checkout: Path) -> dict[str, Path]:
    """Name -> path of the 32 examples and of the two scripts of pretraining."""
    paths = [*sorted((checkout / "examples").glob("*.py")), *sorted((checkout / "pretraining").glob("*.py"))]
    return {path.stem: path for path in paths}


def prepare(source: str, name: str, work: Path) -> str:
    """Puts our paths and sizes into a script."""
    source = re.sub(r"(?<=['\"])/root(?=/)", str(work / "root"), source)
    source = re.sub(r"(?<=['\"])/home/spaces_ac_cn/(?=chinese)", f"{work}/root/kg/bert/", source)
    source = re.sub(r"(?<=['\"])/home/spaces_ac_cn(?=/corpus)", str(work / "root"), source)
    source = re.sub(r"(?<=['\"])gs://xxxx/bert4keras/corpus/", "../corpus_tfrecord/", source)
    source = re.sub(r"(?<=['\"])gs://xxxx/bert4keras/saved_model/", "", source)
    source = re.sub(r"tpu_address = '[^']*'", "tpu_address = None", source)
    for size, value in (SIZES | EXTRA.get(name, {})).items():
        source = re.sub(rf"(?<![\w.])({size} ?= ?)\d+", rf"\g<1>{value}", source)
    return source.replace("minlen, maxlen = 8, 32", "minlen, maxlen = 4, 16").replace("range(10)", "range(1)")


def prepared(name: str, path: Path, work: Path, kind: str) -> tuple[list[Path], dict]:
    """The script to run, after what it needs, in a folder of its own; what was changed in it beyond imports."""
    folder = work / "runs" / kind / name / "examples"
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "datasets").symlink_to(work / "examples" / "datasets")
    (folder.parent / "corpus_tfrecord").symlink_to(work / "corpus_tfrecord")
    targets, changed = [], {}
    for stem in [*NEEDS.get(name, []), name]:
        source = prepare((path.parent / f"{stem}.py").read_text(encoding="utf-8"), stem, work)
        target = folder / f"{stem}.py"
        target.write_text(source, encoding="utf-8")
        if kind != "original":
            from bert4x.porting import HAND, port_file, target_of

            ported = port_file(target, write=True)
            changed = {"rules": ported.rules, "by hand": [n.text for n in ported.notes if n.kind == HAND]}
            target = target_of(target)
        elif name == "pretraining":  # a port takes what it imports of data_utils from bert4x
            shutil.copy(path.with_name("data_utils.py"), folder)
        targets.append(target)
    return targets, changed


def run(targets: list[Path], checkout: Path, work: Path, original: bool, timeout: int) -> None:
    """Scripts in one new process; results lie beside them."""
    command = [sys.executable, __file__, "--child", *(["--original"] if original else []), *map(str, targets)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    if original:
        home = str(patched(checkout, work))
        environment |= {"TF_KERAS": "1", "TF_USE_LEGACY_KERAS": "1", "BERT4KERAS_PATCHED": home}
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(command, cwd=work, env=environment, timeout=timeout * len(targets), check=False)


def patched(checkout: Path, work: Path) -> Path:
    """bert4keras without its lines that replace modules of TensorFlow: with today's they must not."""
    home = work / "bert4keras_patched"
    if not home.exists():
        shutil.copytree(checkout / "bert4keras", home / "bert4keras")
        path = home / "bert4keras/backend.py"
        source = path.read_text(encoding="utf-8").replace("    sys.modules['keras'] = tf.keras", "    pass")
        path.write_text(source.replace("sys.modules['tensorflow.keras.backend'] = K", "pass"), encoding="utf-8")
    return home


def table(work: Path) -> None:
    """script | lines changed beyond imports | losses of bert4keras | losses here."""

    def shown(result):
        if "error" in result:
            return result["error"][:60]
        return ", ".join(f"{value:.7g}" for value in (result.get("losses") or result.get("predicted", []))[:3])

    ours, theirs = (json.loads((work / f"results-{kind}.json").read_text()) for kind in ("tensorflow", "original"))
    for name, result in ours.items():
        print(f"| {name} | {result.get('rules')} | {shown(theirs.get(name, {}))} | {shown(result)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--original", action="store_true")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "bert4keras_scripts")
    parser.add_argument("--timeout", type=int, default=600)
    parser.add_argument("--together", action="store_true", help="all in one process: quicker")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        import bert4keras_prologue

        bert4keras_prologue.run(options.names, options.original)
        return
    if options.table:
        table(options.work)
        return
    checkout = Path(os.environ["BERT4KERAS"])
    work = options.work.resolve()
    if not (work / "root").exists():
        import bert4keras_data

        (work / "corpus_tfrecord").mkdir(parents=True)
        bert4keras_data.make_models(work / "root")
        bert4keras_data.make_data(work / "root", work / "examples")
    kind = "original" if options.original else os.environ.get("KERAS_BACKEND", "tensorflow")
    results = work / f"results-{kind}.json"
    known = json.loads(results.read_text()) if results.exists() else {}
    jobs = {}
    for name, path in scripts(checkout).items():
        if (not options.names or name in options.names) and (kind in ("original", "tensorflow") or name not in TF_ONLY):
            jobs[name] = prepared(name, path, work, kind)
    from bert4keras_prologue import GRAPHS

    graphs = [name for name in jobs if options.original and any(part in name for part in GRAPHS)]
    together = [[name for name in jobs if name not in graphs], graphs]
    groups = [group for group in together if group] if options.together else [[name] for name in jobs]
    for group in groups:
        run([target for name in group for target in jobs[name][0]], checkout, work, options.original, options.timeout)
        for name in group:
            targets, changed = jobs[name]
            done = targets[-1].with_name("result.json")
            known[name] = changed | (json.loads(done.read_text()) if done.exists() else {"error": "did not end"})
            print(name, json.dumps(known[name], ensure_ascii=False), flush=True)
        results.write_text(json.dumps(known, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()

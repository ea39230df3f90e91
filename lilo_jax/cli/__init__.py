"""`lilo <verb>`: looks at machines, models and runs.  Each verb is thin; what it shows is computed elsewhere."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from lilo_jax.cli import measuring, verbs
from lilo_jax.errors import UsageError
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.storage.paths import path_of


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def main() -> None:
    """The console script."""
    exit_with_message(_main)


def _main() -> None:
    sys.path.insert(0, os.getcwd())  # classes of one's own are found there, as `python -m` finds them
    arguments = vars(parser().parse_args())
    run = arguments.pop("verb")
    del arguments["debug"]
    run(**arguments)


def parser() -> argparse.ArgumentParser:
    """Of the command line; `verb` is the function to be called with all else but `debug`."""
    parser = _Parser(prog="lilo", description=__doc__)
    added = parser.add_subparsers(dest="verb", required=True, parser_class=_Parser)

    def verb(run: Callable[..., None], does: str, example: str, name: str = "") -> argparse.ArgumentParser:
        name = name or run.__name__
        one = added.add_parser(name, help=does, description=does, epilog=f"example: {example}")
        one.add_argument("--debug", action="store_true", help="show the traceback of an error")
        one.set_defaults(verb=run)
        return one

    _add_model_verbs(verb)
    _add_grading_verbs(verb)
    _add_run_verbs(verb)
    _add_verbs_of_several_runs(verb)
    return parser


def _add_model_verbs(verb: Callable[..., argparse.ArgumentParser]) -> None:
    doctor = verb(
        verbs.doctor,
        "Versions, devices and memory of this machine; and what a model directory holds.",
        "lilo doctor --model models/qwen",
    )
    doctor.add_argument("--model", help="Hugging Face directory, hub id or run directory to look into")
    doctor.add_argument("--prompt", default="What is 6 times 7?", help="text of the prompt that is shown rendered")

    import_ = verb(
        verbs.import_,
        "Writes a GGUF file, the format of llama.cpp, as a directory that every MODEL may be: float32 weights, config, "
        "tokenizer, chat template.  `pip install gguf` first.",
        "lilo import gguf model-q4_k_m.gguf --output models/mine",
        "import",
    )
    import_.add_argument("format", choices=("gguf",))
    import_.add_argument(
        "file", metavar="FILE", help="GGUF file, or package:NAME for the one in an installed Python package"
    )
    import_.add_argument("--output", type=path_of, required=True, help="directory to write")

    generate = verb(
        verbs.generate,
        'Completions: lines of {"prompt"}, {"messages"} (turns of a chat, the last one a user\'s) or {"tokens"} to '
        'lines of {"tokens", "texts", "logprobs", "ended"}.',
        "lilo generate models/qwen --input prompts.jsonl --output completions.jsonl --samples 4",
    )
    _add_files(generate)
    generate.add_argument("--max-new-tokens", type=_positive, default=256)
    generate.add_argument("--temperature", type=float, default=1.0, help="0 is greedy")
    generate.add_argument("--top-p", type=float, default=1.0)
    generate.add_argument("--samples", type=_positive, default=1, help="completions of each line")
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument("--stop", action="append", default=[], help="text that ends a completion; may be repeated")
    _add_prompting(generate)

    logprobs = verb(
        verbs.logprobs,
        'Log-probs: lines of {"tokens": [n]} to lines of {"logprobs": [n - 1]}, of each token given those before it.  '
        "No tokenizer is needed and no begin token added.",
        "lilo logprobs models/qwen --input tokens.jsonl --output logprobs.jsonl",
    )
    _add_files(logprobs)


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="Hugging Face directory, hub id or run directory")
    _add_paths(parser)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the computation")


def _add_grading_verbs(verb: Callable[..., argparse.ArgumentParser]) -> None:
    grade = verb(
        verbs.grade,
        'Verdicts: lines of {"gold", "response"} (and "question" or "solution", if they matter) to lines of '
        '{"verdict", "extracted", "rule", "seconds"}.',
        "lilo grade --input answers.jsonl --output verdicts.jsonl --grader paper",
    )
    _add_paths(grade)
    grade.add_argument("--grader", default="default", help="default, paper, exact or math_verify")
    _add_workers(grade)
    grade.add_argument("--deadline", type=float, default=3.0, help="seconds for one answer in a process")
    grade.add_argument("--explain", action="store_true", help="say how each verdict came about")

    data = verb(
        verbs.data,
        "Shows three rendered prompts of a data set with their golds, its longest prompts, and what is wrong with it: "
        "broken rows with their numbers, repeated questions and ids, overlaps of splits, golds that cannot be read.",
        "lilo data check questions.jsonl",
    )
    data.add_argument("action", choices=("check",))
    data.add_argument("source", metavar="NAME-or-FILE", help="task, NAME or NAME=PATH, or a data file or directory")
    data.add_argument("--question", default="", help="column of a file that holds the question")
    data.add_argument("--answer", default="", help="column of a file that holds the answer")
    data.add_argument("--template", default="", help="prompt style")
    data.add_argument("--model", help="whose tokenizer counts the tokens of the longest prompts")

    _add_passrates(verb)
    evaluate = verb(
        measuring.evaluate,
        "Accuracy on test sets: pass@1, pass@k and maj@k with intervals; responses and results go to a directory, "
        "from which they can be graded again.",
        "lilo eval runs/latest --suite gsm8k,math500 --protocol vineppo --output results/latest",
        "eval",
    )
    evaluate.add_argument("model", nargs="?", help="Hugging Face directory, hub id or run directory")
    evaluate.add_argument(
        "--suite", default="", help="test sets, NAME or NAME=PATH, with commas between; task, a run's own, if left out"
    )
    evaluate.add_argument("--protocol", default="", help="vineppo, oat or greedy, which is taken if left out")
    _add_workers(evaluate)
    evaluate.add_argument("--output", type=path_of, required=True, help="directory to write")
    evaluate.add_argument("--generations", type=path_of, help="grade these again instead of sampling")
    evaluate.add_argument("--grader", default="", help="instead of the protocol's or the task's")
    evaluate.add_argument(
        "--stop", action="append", default=[], help="text that ends a response, beside the protocol's"
    )
    evaluate.add_argument(
        "--shots",
        type=_positive,
        default=0,
        help="worked examples of a suite's training questions before each question",
    )
    evaluate.add_argument("--samples", type=_positive, help="instead of the protocol's, as are the following")
    evaluate.add_argument("--temperature", type=float, help="0 is greedy")
    evaluate.add_argument("--top-p", type=float)
    evaluate.add_argument("--max-new-tokens", type=_positive)
    evaluate.add_argument("--seed", type=int)
    evaluate.add_argument("--max-questions", type=_positive, default=0, help="of each suite, the first ones")
    _add_prompting(evaluate)
    evaluate.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the computation")


def _add_passrates(verb: Callable[..., argparse.ArgumentParser]) -> None:
    rates = verb(
        measuring.passrates,
        "How often a model solves each training question: a JSON line a question, for any trainer; goes on where it "
        "was stopped.  --keep writes the questions of some rates, and as many at random beside them.",
        "lilo passrates models/qwen --task gsm8k --samples 8 --output rates.jsonl --keep 0.1,0.9",
    )
    rates.add_argument("model", help="Hugging Face directory, hub id or run directory")
    rates.add_argument("--task", required=True, help="task, NAME or NAME=PATH, or a data file")
    rates.add_argument("--split", default="train", help="of the task")
    rates.add_argument("--output", type=path_of, required=True, help="JSON-lines file")
    rates.add_argument("--keep", default="", help="LOW,HIGH: success rates of the questions to keep, both included")
    rates.add_argument("--samples", type=_positive, default=8, help="rollouts of each question")
    rates.add_argument("--max-new-tokens", type=_positive, default=256)
    rates.add_argument("--temperature", type=float, default=1.0)
    rates.add_argument("--top-p", type=float, default=1.0)
    rates.add_argument("--stop", action="append", default=[], help="text that ends a response; may be repeated")
    rates.add_argument("--seed", type=int, default=0, help="of the rollouts, and of generated tasks")
    rates.add_argument("--grader", default="", help="instead of the task's")
    rates.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the computation")
    _add_workers(rates)
    _add_prompting(rates)


def _add_prompting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--template", default="", help="prompt style: a name, or a text with {question} in it")
    parser.add_argument("--template-file", type=path_of, help="the same from a file")
    parser.add_argument("--chat", action="store_true", help="put prompts as a user's turn into the chat template")
    parser.add_argument("--system", default="", help="content of a system's turn before it")


def _add_paths(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", type=path_of, required=True, help="JSON-lines file")
    parser.add_argument("--output", type=path_of, required=True, help="JSON-lines file to write")


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers", type=_positive, default=0, help="processes for what cannot be graded at once; else one per core"
    )


def _add_run_verbs(verb: Callable[..., argparse.ArgumentParser]) -> None:
    plan = verb(
        verbs.plan,
        "What an experiment needs on a TPU slice: its programs, compiled without a TPU, with memory, messages and "
        "seconds.  `lilo plan EXPERIMENT --help` shows the options.",
        "lilo plan train --topology v5e:4x4 --mesh.fsdp 16 --algorithm ppo --propose",
    )
    plan.add_argument("experiment", metavar="EXPERIMENT", help="module of experiments/, or a run directory")
    plan.add_argument("options", nargs=argparse.REMAINDER, help="of the plan and of the experiment")
    export = verb(
        verbs.export,
        "Writes policy and critic of a run as directories that Hugging Face transformers loads; adapters are merged.",
        "lilo export runs/latest --output models/mine --dtype bfloat16",
    )
    export.add_argument("run", metavar="RUN", help="run directory")
    export.add_argument("--output", type=path_of, required=True, help="directory to write")
    export.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of the written weights; float32 loses nothing",
    )
    _add_push(verb)
    watch = verb(
        verbs.watch,
        "A run in the terminal while it goes on: accuracy, reward, entropy, zero-variance share, the frontier, speed, "
        "tokens by purpose, time left.  Ctrl-C ends the view, not the run.",
        "lilo watch runs/latest",
    )
    watch.add_argument("run", metavar="RUN", type=path_of, help="run directory")
    watch.add_argument("--once", action="store_true", help="show it one time, as where there is no terminal")
    digest = verb(
        verbs.digest,
        "SHA-256 of every part of a run's final state, sub-runs included; equal runs print equal text.",
        "lilo digest runs/latest",
    )
    digest.add_argument("run", metavar="RUN", type=path_of, help="run directory")


def _add_verbs_of_several_runs(verb: Callable[..., argparse.ArgumentParser]) -> None:
    compare = verb(
        verbs.compare,
        "Arms against the first: difference of accuracy paired by seed and question with its interval, probability of "
        "being better, interquartile mean, speed-ups.",
        "lilo compare runs/quickstart/uniform runs/quickstart/frontier",
    )
    compare.add_argument("arms", nargs="+", metavar="ARM", help="run directory, or ROOT/ARM for ROOT/seed_*/ARM")
    compare.add_argument("--factor", default="curriculum", help="setting in which arms may differ; any: in all")
    report = verb(verbs.report, "An HTML report of one or more runs.", "lilo report runs/a runs/b --output report.html")
    report.add_argument("runs", type=path_of, nargs="+", help="run directories")
    report.add_argument("--output", type=path_of, required=True, help="HTML file to write")
    report.add_argument(
        "--against",
        default="steps,generated_tokens,seconds",
        help="what curves are drawn against, with commas between: accuracy against each, the others against the first; "
        "also known: flops, trained_tokens, scored_tokens, prefilled_tokens, grader_seconds, and generated or "
        "prefilled tokens of one purpose, such as rejected/generated",
    )
    report.add_argument(
        "--data",
        type=path_of,
        metavar="DIR",
        help="also write a CSV and an SVG file of every figure to this folder",
    )


def _add_push(verb: Callable[..., argparse.ArgumentParser]) -> None:
    push = verb(
        verbs.push,
        "Uploads the policy of a run to the Hugging Face hub, with a model card made from the run.  `hf auth login` "
        "first; --offline writes the same to a directory.",
        "lilo push runs/latest --to USER/NAME",
    )
    push.add_argument("run", metavar="RUN", help="run directory")
    push.add_argument("--to", default="", metavar="USER/NAME", help="repository; else your own of the run's name")
    push.add_argument("--offline", type=path_of, metavar="DIR", help="directory to write, instead of an upload")
    push.add_argument("--private", action="store_true", help="make a new repository private")
    push.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of the written weights"
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


if __name__ == "__main__":
    main()

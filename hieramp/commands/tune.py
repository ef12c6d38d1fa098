"""python -m hieramp tune: looks for the ρ and β of each stage that serve a proxy best."""

import argparse
from pathlib import Path

from matplotlib.figure import Figure
from tqdm import tqdm

from hieramp.analysis.judged import judge
from hieramp.checkpoints import fingerprint, model_folder, read_config, write_text
from hieramp.classifier import Classifier, load_classifier
from hieramp.commands import COMMANDS
from hieramp.commands import arguments as shared
from hieramp.commands.data_arguments import place
from hieramp.errors import UserError
from hieramp.evaluation.images import LabeledImages, align_to_model, load_set
from hieramp.evaluation.students import build_student
from hieramp.fields import table
from hieramp.figures import save_figure
from hieramp.generation.sampling import Sampling
from hieramp.tuning.proxies import FidProxy, JudgeProxy, Proxy, StudentProxy
from hieramp.tuning.search import Search, SearchSettings, Tried, as_json

PROXIES = ("judge", "fid", "student")


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("tune", help=COMMANDS["tune"])
    parser.add_argument("--ipc", type=shared.positive, default=10, help="images per class of a trial (default: 10)")
    parser.add_argument("--trials", type=shared.positive, default=30, help="in all, earlier sessions counted")
    parser.add_argument(
        "--proxy",
        choices=PROXIES,
        default="judge",
        help="judge: share named right × diversity; fid: to real images; student: short runs (these two need --data)",
    )
    parser.add_argument("--data", type=place, metavar="FOLDER", help="real training images; test images have no say")
    parser.add_argument("--real-images", type=shared.positive, default=2000, help="of --data (default: 2000)")
    parser.add_argument("--student", default="small", help="of --proxy student (default: small)")
    parser.add_argument("--epochs", type=shared.positive, default=30, help="of --proxy student (default: 30)")
    parser.add_argument("--classifier", type=model_folder, help="model of the classifier (default: the model's own)")
    shared.add_settings(parser.add_argument_group("sampling"), table(Sampling))
    parser.add_argument("--seed", type=shared.whole_number, default=0)
    parser.add_argument("--out", type=Path, help="folder of the search (default: runs/tune/MODEL-PROXY-ipcN)")
    shared.add_model(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    if args.proxy != "judge" and not args.data:
        raise UserError(f"--proxy {args.proxy} needs --data: a folder of real images")
    model = shared.load_model(args)
    if not model.has_class_tokens:
        raise UserError(f"{model.name} has no class tokens, so nothing can be amplified: train them first")
    folder = args.classifier or model_folder(args.model)
    classifier = load_classifier(folder).to(model.device)
    real = None
    if args.data:
        real = align_to_model(load_set(args.data, model.image_size, args.real_images), read_config(folder))
    if args.proxy == "student":
        build_student(args.student, len(model.class_names), model.image_size)  # one that cannot be built is told now
    proxy = _proxy(args, classifier, real)
    settings = shared.settings(args, model.kind, model.defaults)
    model.check(settings)
    out = args.out or Path("runs/tune") / f"{model.name}-{args.proxy}-ipc{args.ipc}"
    weights = fingerprint(model.vqvae.state_dict(), model.var.state_dict(), classifier.state_dict())[:16]
    details = f"{weights} {real.sha256[:16] if real else ''}" + f" {args.student} {args.epochs}" * (
        args.proxy == "student"
    )
    search = Search(out, SearchSettings(model.name, args.ipc, args.proxy, settings.sampling, args.seed, details))
    with tqdm(total=args.trials, initial=len(search.tried()), desc="trials", disable=None) as bar:
        for tried in search.run(model, proxy, args.trials):
            bar.set_postfix(best=f"{search.best().worth.score:.4g}", refresh=False)
            bar.update()
            if bar.disable:
                shared.say(_line(tried))
            write_text(out / "trials.json", as_json(search))
    write_text(out / "trials.json", as_json(search))
    save_figure(_history(search.tried()), out / "trials.png")
    _report(search, args, out)


def _proxy(args: argparse.Namespace, classifier: Classifier, real: LabeledImages | None) -> Proxy:
    if args.proxy == "judge" or real is None:
        return JudgeProxy(classifier)
    if args.proxy == "fid":
        return FidProxy(classifier, judge(classifier, real.images, real.labels).features_NF)
    return StudentProxy(classifier, real.to(classifier.mean.device), args.student, args.epochs)


def _line(tried: Tried) -> str:
    parts = ", ".join(f"{name} {value:.4g}" for name, value in tried.worth.parts.items())
    return f"trial {tried.number}: {tried.worth.score:.4g} ({parts}) {tried.stages}"


def _history(tried: list[Tried]) -> Figure:
    """Scores in their order, and the best so far."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    scores = [t.worth.score for t in tried]
    axes.plot(scores, "o", color="#1c1b22", markersize=3, label="trial")
    axes.plot([max(scores[: i + 1]) for i in range(len(scores))], color="#b5483a", label="best so far")
    axes.set(xlabel="trial", ylabel="score")
    axes.legend(fontsize=8)
    return figure


def _report(search: Search, args: argparse.Namespace, out: Path) -> None:
    best = search.best()
    for name in ("off", "all"):
        tried = search.default(name)
        if tried:
            print(f"{name}: {_line(tried)}")
    print(f"best: {_line(best)}")
    print("the proxy is a guess; judge the best by the students of a set of its own:")
    print(f"python -m hieramp distill --ipc {args.ipc} --stages {best.stages} --out tuned.zip")
    print(f"files: {out}/trials.json, trials.png, journal.log")

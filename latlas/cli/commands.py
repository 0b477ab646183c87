"""The table of commands: what ``latlas --help`` shows, and where each one lives.

Imports nothing, so the first help is as fast as Python starts.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One command: its group, ``module:function``, one line, and lines that work as they stand."""

    group: str
    target: str
    summary: str
    examples: tuple[str, ...]


COMMANDS: dict[str, Command] = {
    "models": Command("Learn", "latlas.cli.train:models", "List the models and what each can do.", (
        "latlas models",)),
    "train": Command("Learn", "latlas.cli.train:train", "Train a model on your data.", (
        "latlas train vae --data digits",
        "latlas train vae --data photos/ --image-size 64 --minutes 30 --out runs/photos",
        "latlas train vae --data mnist.npz --set likelihood=bernoulli --set latent_dim=40",
        "latlas train --continue runs/vae-photos --minutes 20",
        "latlas train vae --help      the settings of one model")),
    "fit-prior": Command("Learn", "latlas.cli.train:fit_prior",
                         "Fit a second prior to a run's latents: better samples.", (
        "latlas fit-prior runs/vae-digits", "latlas fit-prior runs/vae-mnist --minutes 3")),
    "runs": Command("Learn", "latlas.verbs.runs:runs", "List the runs below a folder; delete some.",
                    ("latlas runs", "latlas runs experiments/",
                     "latlas runs --delete runs/vae-digits")),
    "demo": Command("Learn", "latlas.cli.train:demo",
                    "Train pca, ae and vae on handwriting and compare them.", ("latlas demo",)),
    "sample": Command("Make", "latlas.verbs.generate:sample", "Draw new samples.", (
        "latlas sample runs/vae-digits --n 64 --out samples.png",
        "latlas sample runs/conditional-vae-digits --label 3 --out threes.npz",
        "latlas sample runs/style-gan-photos --seeds 1,2,5-9 --truncation 0.7")),
    "decode": Command("Make", "latlas.verbs.generate:decode",
                      "Turn latent vectors into examples.", (
        "latlas decode runs/vae-digits latents.csv --out examples.png",)),
    "interpolate": Command("Make", "latlas.verbs.generate:interpolate",
                           "Walk from one example to another through the latent space.", (
        "latlas interpolate runs/vae-digits --out walk.gif",
        "latlas interpolate runs/vae-digits --start 3 --end 17 --method slerp --out walk.png",
        "latlas interpolate runs/vae-digits --method geodesic --metric uncertain --out walk.png",
        "latlas interpolate runs/style-gan-photos --space w --out walk.gif")),
    "traverse": Command("Make", "latlas.verbs.generate:traverse",
                        "Vary one latent dimension at a time.", (
        "latlas traverse runs/vae-digits --out traverse.png",)),
    "project": Command("Make", "latlas.verbs.project:project",
                       "Find the latent vector of given examples by optimisation.", (
        "latlas project runs/gan-digits --n 6 --out project.png",
        "latlas project runs/style-gan-photos --data new/ --features random-conv --out way.gif")),
    "translate": Command("Make", "latlas.verbs.translate:translate",
                         "Turn examples of one domain into those of another.", (
        "latlas translate runs/pix2pix-maps --data new/ --out scenes/",
        "latlas translate runs/cycle-gan-horses --data zebras/ --to A --out horses/",
        "latlas translate runs/pix2pix-maps --n 16 --out sheet.png")),
    "mix": Command("Make", "latlas.verbs.styles:mix",
                   "Give some styles of one image to another.", (
        "latlas mix runs/style-gan-photos --rows 1,2,3 --columns 4-8 --layers coarse",)),
    "directions": Command("Make", "latlas.verbs.styles:directions",
                          "Directions in which examples change most.", (
        "latlas directions runs/gan-digits --k 6 --out directions.png",
        "latlas directions runs/style-gan-photos --layers fine --example 3")),
    "encode": Command("Read", "latlas.verbs.encode:encode", "Turn examples into latent vectors.", (
        "latlas encode runs/vae-digits --data digits --out latents.csv",)),
    "reconstruct": Command("Read", "latlas.verbs.encode:reconstruct",
                           "Encode and decode: what the model keeps of each example.", (
        "latlas reconstruct runs/vae-digits --out reconstructions.png",)),
    "denoise": Command("Read", "latlas.verbs.encode:denoise", "Clean noisy examples.", (
        "latlas denoise runs/dae-digits --data noisy/ --out clean/",)),
    "classify": Command("Read", "latlas.verbs.encode:classify",
                        "The class of every example, by a model with an output for classes.", (
        "latlas classify runs/debiasing-vae-digits --data new/ --out classes.csv",)),
    "score": Command("Measure", "latlas.verbs.score:score",
                     "Log-likelihood of every example, in nats.", (
        "latlas score runs/vae-digits --out scores.csv",
        "latlas score runs/vae-digits --method ais --n 20",
        "latlas score runs/ae-digits --observation-sd 0.2 --n 20")),
    "outliers": Command("Measure", "latlas.verbs.outliers:outliers", "Rank what does not belong.", (
        "latlas outliers runs/vae-digits",
        "latlas outliers runs/table --data new.csv --fpr 0.001 --out outliers.csv",
        "latlas outliers runs/table --data labelled.csv --label kind --outlier-label fraud,fault")),
    "weights": Command("Measure", "latlas.verbs.weights:weights",
                       "Weights by which rare examples come more often.", (
        "latlas weights runs/vae-digits --out weights.parquet",
        "latlas weights runs/debiasing-vae-digits --data new/ --dimensions")),
    "audit": Command("Measure", "latlas.verbs.audit:audit",
                     "What is under-represented in a data set? Page, table and JSON.", (
        "latlas audit runs/vae-digits",
        "latlas audit runs/faces --data faces/ --group age --out audit/",
        "latlas audit runs/table --data new.csv --label kind --json")),
    "evaluate": Command("Measure", "latlas.verbs.evaluate:evaluate",
                        "How good is a run? Metrics on held-out data, with controls.", (
        "latlas evaluate runs/vae-digits --split test --draws 1000",)),
    "compare": Command("Measure", "latlas.verbs.evaluate:compare", "Several runs in one table.", (
        "latlas compare runs/pca-digits runs/vae-digits",)),
    "geometry": Command("Measure", "latlas.verbs.geometry:measure_geometry",
                        "How does the decoder stretch the latent space? Map and geodesics.", (
        "latlas geometry runs/vae-digits",
        "latlas geometry runs/vae-digits --metric uncertain --out geometry.png")),
    "report": Command("Measure", "latlas.verbs.report:report", "One HTML file about a run.", (
        "latlas report runs/vae-digits",)),
    "data info": Command("Data", "latlas.cli.data:info",
                         "What is in a source, and which model to train on it?", (
        "latlas data info digits", "latlas data info photos/ --image-size 64")),
    "data pack": Command("Data", "latlas.cli.data:pack",
                         "Pack a source into a folder that opens at once and needs no memory.", (
        "latlas data pack photos/ packed/ --image-size 64",)),
}


def overview() -> str:
    """What ``latlas --help`` prints."""
    lines = ["latlas: learn a distribution from samples, and put it to work.", "",
             "Usage: latlas COMMAND [OPTIONS]", ""]
    for group in ("Learn", "Make", "Read", "Measure", "Data"):
        members = [f"  {k:<12} {v.summary}" for k, v in COMMANDS.items() if v.group == group]
        lines += [f"{group}:", *members, ""]
    return "\n".join([*lines, *START, ""])


START = (
    "Start here:",
    "  latlas data info photos/                what is in it, and which model to train",
    "  latlas train vae --data digits          train on a source; any folder, npz, csv … will do",
    "  latlas sample runs/vae-digits --n 64    draw new examples from the run",
    "  latlas COMMAND --help                   options and examples of one command",
)

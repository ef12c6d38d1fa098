"""What `python -m hieramp` can be asked for. A command's module is loaded only when it is called."""

COMMANDS = {
    "generate": "draw images of a class, plain and amplified",
    "saliency": "draw an image with its saliency map at every scale",
    "dose": "sweep a stage's strength or ρ: probability, distances, entropy",
    "distill": "make a distilled set that everything loads",
    "recover": "draw a distilled set anew by a diffusion transformer (DIVER)",
    "verify": "compare a distilled set with its manifest",
    "train": "train a model, or a part: vqvae, then var, class-tokens, classifier; or decoder or dit on the vqvae",
    "measure": "measure a model folder and write its card",
    "relabel": "store a teacher's labels for every epoch of a student's training",
    "evaluate": "train students on a set and test them",
    "compare": "a table of sets and students; makes what a study lacks, and resumes",
    "analyse": "look into a set: tokens, FID, nearest real images, confidence",
    "tune": "look for the schedule that serves a proxy best (needs Optuna)",
    "push": "upload a distilled set or a model to the Hugging Face Hub",
}

"""The one rule set for where classes and splits lie in a folder of images; docs/data.md tells it in words."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hieramp.data.files import NO_IMAGE, Folder, LeftOut, holds_image, images_below, joined
from hieramp.data.pictures import is_picture
from hieramp.errors import UserError

# Names of splits, whatever their letter case; a test set that is only called "val" serves as one
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
TAKEN_FOR = {"train": ("train",), "val": ("val",), "test": ("test", "val")}
WRAPPERS = 4  # folders around folders that are looked through
ANNOTATIONS = "val_annotations.txt"  # of Tiny-ImageNet, whose val/ has no class folders


@dataclass(frozen=True)
class Classes:
    """The classes of a split: folder names as Python sorts, and the paths of the images of each."""

    split: str  # path of the split's folder from the root; "" where the root itself holds the classes
    paths: dict[str, list[str]]


def find_classes(root: Folder, split: str, where: str, left_out: LeftOut) -> Classes:
    """Classes of `split` ("train", "val", "test", or the name of a folder) below `root`.

    Raises:
        UserError: there is no such split, or it has no classes, or one of a class's files is no image.
    """
    chosen = _chosen_split(root, split, where, left_out)
    place = joined(where, chosen.path) if chosen.path else where
    annotated = _annotated(chosen)
    if annotated is not None:
        return Classes(chosen.path, {"": annotated})
    for name in chosen.files:
        reason = "images outside the class folders" if is_picture(name) else NO_IMAGE
        left_out.add(reason, joined(chosen.path, name))
    paths: dict[str, list[str]] = {}
    above: set[object] = {root.identity, chosen.identity}
    for name, folder in chosen.folders.items():
        before = len(left_out.names.get(NO_IMAGE, []))
        found = list(images_below(folder, left_out, set(above)))
        others = left_out.names.get(NO_IMAGE, [])[before:]
        if found:
            paths[name] = found
        elif others:
            raise UserError(
                f"class {name!r} of {place} holds no image that can be read, but {len(others)} other file(s) such as "
                f"{others[0]}: convert them to PNG or JPEG, or move the folder away"
            )
        else:
            left_out.add("empty class folders", joined(chosen.path, name))
    if not paths:
        raise UserError(_no_classes(place, chosen))
    return Classes(chosen.path, paths)


def _no_classes(place: str, folder: Folder) -> str:
    if any(map(is_picture, folder.files)):
        return f"{place} has no class sub-folders: put the images of each class into a folder of its own"
    return f"{place} holds no images: give a folder with one sub-folder of images per class"


def _chosen_split(root: Folder, split: str, where: str, left_out: LeftOut) -> Folder:
    """The folder that holds the classes of a split: one below the root, or the root where it has no splits."""
    folder: Folder | None = root
    for _ in range(WRAPPERS):
        if folder is None:
            break
        if splits := splits_of(folder):
            return _one_of(folder, splits, split, where, left_out)
        folder = _only_folder(folder)
    if split not in TAKEN_FOR:  # named by the user
        if split not in root.folders:
            raise UserError(f"{where} has no split {split!r}: it holds {', '.join(root.folders)[:200] or 'no folder'}")
        return root.folders[split]
    return root


def _only_folder(folder: Folder) -> Folder | None:
    """The one folder that a folder holds, where it holds neither images nor others with images."""
    if any(map(is_picture, folder.files)) or len(folder.folders) > WRAPPERS:
        return None
    inner = [each for each in folder.folders.values() if holds_image(each)]
    return inner[0] if len(inner) == 1 else None


def splits_of(root: Folder) -> dict[str, Folder]:
    """The splits that a folder holds, by name; none where its sub-folders are classes.

    Folders named like splits are splits if every other folder with images is, too: a class may be called "train".
    Where two kinds of split hold a class of the same name, they are splits whatever lies beside them, and may have
    other words in their names, such as seg_train and seg_test.
    """
    named = {name: folder for name, folder in root.folders.items() if kind_of(name) and holds_image(folder)}
    if named and all(name in named or not holds_image(folder) for name, folder in root.folders.items()):
        return named
    return _share_classes(named) or _share_classes(
        {name: folder for name, folder in root.folders.items() if kind_within(name) and holds_image(folder)}
    )


def _share_classes(named: Mapping[str, Folder]) -> dict[str, Folder]:
    """These folders, where two that are named like different kinds of split hold a class of the same name."""
    inner = [(kind_within(name), set(_unwrapped(name, folder).folders)) for name, folder in named.items()]
    shared = any(kind != other and names & others for kind, names in inner for other, others in inner)
    return {name: folder for name, folder in named.items() if folder.folders} if shared else {}


def _unwrapped(name: str, folder: Folder) -> Folder:
    """The folder of the classes of a split, which zips often hold in another of such a name: train/train/cat."""
    for _ in range(WRAPPERS):
        inner = _only_folder(folder)
        if inner is None or not inner.folders or kind_within(_last(inner.path)) != kind_within(name):
            break
        folder = inner
    return folder


def _last(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def kind_within(name: str) -> str | None:
    """ "train", "val" or "test" where one of a name's words is a split's, like "seg_train" or "Test images"."""
    kinds = {kind for word in re.split(r"[^a-z]+", name.lower()) if (kind := kind_of(word))}
    return kinds.pop() if len(kinds) == 1 else None


def kind_of(name: str) -> str | None:
    """ "train", "val" or "test" where a name is one of a split's, like "Training" or "validation"."""
    return next((kind for kind, names in SPLIT_NAMES.items() if name.lower() in names), None)


def _one_of(root: Folder, splits: dict[str, Folder], split: str, where: str, left_out: LeftOut) -> Folder:
    for name, folder in root.folders.items():
        if name not in splits and holds_image(folder):
            left_out.add("folders beside the splits", joined(root.path, name))
    if split not in TAKEN_FOR and split in root.folders:
        return root.folders[split]
    unlabelled = []
    kinds = TAKEN_FOR.get(split) or ((kind,) if (kind := kind_of(split)) else ())
    for kind in kinds:
        found = [_unwrapped(name, folder) for name, folder in splits.items() if kind_within(name) == kind]
        labelled = [folder for folder in found if _has_classes(folder)]
        if len(labelled) > 1:
            names = " and ".join(folder.path for folder in labelled)
            raise UserError(f"{where} holds {names}, which are both the {kind} split: give the one that is meant")
        if labelled:
            return labelled[0]
        unlabelled += found
    held = ", ".join(splits)
    if unlabelled:
        path = joined(where, unlabelled[0].path)
        raise UserError(f"{path} has no class sub-folders: put the images of each class into a folder of its own")
    wanted = " or ".join(kinds or (split,))
    raise UserError(f"{where} holds the split(s) {held}, but no {wanted}: give the folder of the images to take")


def _has_classes(folder: Folder) -> bool:
    """Whether images are labelled: in class folders, or by Tiny-ImageNet's val_annotations.txt."""
    inner = [name for name, each in folder.folders.items() if holds_image(each)]
    return bool(inner) and (inner != ["images"] or ANNOTATIONS in folder.files)


def _annotated(folder: Folder) -> list[str] | None:
    """Images that a file labels, not their folder."""
    if ANNOTATIONS not in folder.files or [name for name, each in folder.folders.items() if each.files] != ["images"]:
        return None
    return list(images_below(folder.folders["images"], LeftOut(), set()))


def by_annotations(paths: list[str], text: str, where: str) -> dict[str, list[str]]:
    """Images of each class by the lines of val_annotations.txt: file name, tab, class, tab, …

    Raises:
        UserError: a line is of another form, or an image has none.
    """
    class_of: Mapping[str, str] = {}
    try:
        class_of = dict(line.split("\t")[:2] for line in text.splitlines() if line.strip())
        pairs = [(class_of[path.rsplit("/", 1)[-1]], path) for path in paths]
    except (ValueError, KeyError) as error:
        raise UserError(f"{ANNOTATIONS} of {where} is damaged, or lacks an image: {error}") from error
    found: dict[str, list[str]] = {name: [] for name in sorted({name for name, _ in pairs})}
    for name, path in pairs:
        found[name].append(path)
    return found

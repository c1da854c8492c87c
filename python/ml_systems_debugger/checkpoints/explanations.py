"""What each code of a checkpoint's findings means, why it matters, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .finding import CODES

__all__ = ["EXPLANATIONS", "explanation"]

EXPLANATIONS: Mapping[str, str] = MappingProxyType(
    {
        "nan": "Every forward pass through the tensor gives NaN. Go back to the last checkpoint "
        "without NaN and look at the loss and the gradient norms from there on; if training was "
        "well, the file was damaged while it was saved or gathered.",
        "inf": "Products with it become infinite or NaN. It overflowed, most often on the way to "
        "a narrower type: convert through a wider one and look at the largest magnitude before. "
        "Negative infinity alone is usual in an attention mask.",
        "scale_not_finite": "Each value of the block is its scale times a small integer, so the "
        "whole block is lost. Quantise again from weights that are finite, and look at the "
        "largest magnitude of the source tensor.",
        "all_zero": "The layer contributes nothing: never trained, never written, or zeroed on "
        "purpose (an adapter's second matrix begins at zero). Look whether it got gradients, and "
        "whether every rank wrote its part.",
        "constant": "Rows that are all alike get the same gradient and stay alike. Initialise "
        "them at random; look whether a loader filled in what it did not find.",
        "never_trained": "The optimizer's own state shows it: every gradient of the parameter was "
        "zero. It is cut off from the loss (detached, masked, a branch not taken), or its unit is "
        "dead. Where it is meant to rest, take it out of the optimizer.",
        "dead_rows": "Outputs that are always zero but for a bias. One such row is how embeddings "
        "pad; many of them are pruning, dead units, or a part that was never written.",
        "dead_columns": "Inputs that are ignored: pruned on purpose, or dead.",
        "outlier": "Layers of one role are alike in scale in a sound network. One that is orders "
        "of magnitude away was overwritten, scaled twice, or grew out of control: compare it "
        "with an earlier checkpoint by `mlsd diff`.",
        "range": "Part of the values lies outside what a type can hold or hold exactly: they "
        "become infinite, zero or imprecise when the checkpoint is used in it. Keep this tensor "
        "in a wider type, or rescale it.",
        "saturated": "Values that were clipped to the largest of their type when they were "
        "converted. Quantise with a larger scale, or one scale for each channel.",
        "shared_storage": "Tensors of one memory are tied: loaders keep them tied, copies and "
        "converters may not. Sound where it is meant (embedding and output layer).",
        "duplicate": "Tied weights saved twice, a layer copied over another, or layers that "
        "began alike and never trained.",
        "expanded_view": "The tensor repeats its memory with a stride of zero; in-place updates "
        "of it are wrong. Save a contiguous copy.",
        "missing_shard": "Tensors of the shard cannot be loaded. Fetch it again or save again; "
        "a job killed while it saved leaves this behind.",
        "extra_shard": "Left over from another save into the same folder, most often: loaders "
        "that read every file mix the two.",
        "missing_tensor": "The index promises it and its shard does not hold it: index and shards "
        "are of different saves, or the shard is half written.",
        "extra_tensor": "A loader that follows the index never reads it.",
        "incomplete_tensor": "Some of its pieces are nowhere in the checkpoint: a rank did not "
        "write its part.",
        "truncated": "The file ends before its last tensor does: a copy or a save was cut off. "
        "Fetch it again and compare sizes or checksums.",
        "trailing_bytes": "The library of safetensors refuses the file, NumPy ignores them; "
        "nothing that they hold takes part. Two files joined, a save over a longer old file, or "
        "hidden data.",
        "duplicate_name": "Readers disagree on which of the two counts.",
        "strange_name": "Names with control characters can rewrite what a terminal or a log "
        "shows. No known framework writes them.",
        "strange_header": "Stricter readers refuse the file. Save it again with the format's own "
        "library.",
        "pickle_global": "A loader that unpickles imports and may call what is named here, with "
        "all rights of the user. Load with a reader of weights alone, or convert to safetensors; "
        "names of a framework's own classes need its code to load.",
        "not_weights_only": "torch.load loads weights alone by default, and knows few names and "
        "codes. Allow the names with torch.serialization.add_safe_globals where they are of your "
        "own, or save tensors and plain numbers only, with the default protocol.",
        "empty": "There is nothing to load: the save failed, or this is not the file that is "
        "meant.",
        "newly_not_finite": "It broke between the two checkpoints: look for the step in the logs "
        "of the training in between.",
        "frozen": "It had no gradient or no place in the optimizer, while others trained. Sound "
        "where it is frozen on purpose.",
        "exploded": "It changed far more than the other tensors: too high a learning rate for "
        "it, a reset, or another initialisation.",
        "missing": "A loads into code that B does not fit: renamed, pruned, or not saved.",
        "added": "B needs code that has a place for it: renamed, or new.",
        "reshaped": "Loading one into the model of the other fails, or broadcasts in silence.",
        "retyped": "Values were rounded or widened; compare its largest change with the "
        "precision of the narrower type.",
    }
)  # fmt: skip
"""By code: consequence, usual causes, what to do."""


def explanation(code: str) -> str:
    """Return title and text for a code; empty where it is not known.

    Examples
    --------
    >>> explanation("empty").partition(chr(10))[0]
    'empty: no tensors'
    """
    if code not in CODES:
        return ""
    mode, title = CODES[code]
    return f"{code}: {title}\n\n{EXPLANATIONS[code]}\n\nFailure mode: {mode}."

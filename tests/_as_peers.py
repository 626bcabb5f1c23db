"""Losses of other packages written with ours: their names, arguments and defaults, our numbers.

Thin, so that they show what a switch costs. `test_as_peers.py` holds them to the packages, option
by option, and `their_tests.py` runs the packages' own tests on them where a release brings any.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Array = Any


def only(pairs: Array, negatives: Array) -> Array:
    """The ids with which no key of the batch is a negative, only these are."""
    import torch

    return torch.cat([torch.zeros(len(pairs)), torch.ones(len(negatives))]).long()


class Lightly:
    """lightly."""

    @staticmethod
    def nt_xent(out0: Array, out1: Array, temperature: float = 0.5, bank: Array = None) -> Array:
        """`NTXentLoss`; the memory bank (K, d) is an argument."""
        from ntxent.torch import info_nce, nt_xent

        if bank is None:
            return nt_xent(out0, out1, temperature=temperature)
        return info_nce(out0, out1, bank, temperature=temperature, ids=only(out0, bank))

    @staticmethod
    def dcl(out0: Array, out1: Array, temperature: float = 0.1) -> Array:
        """`DCLLoss`."""
        from ntxent.torch import nt_xent

        return nt_xent(out0, out1, temperature=temperature, denominator="negatives")


class MetricLearning:
    """pytorch-metric-learning, with the indices (anchors, positives, anchors, negatives)."""

    @staticmethod
    def nt_xent(
        embeddings: Array,
        labels: Array = None,
        indices_tuple: Any = None,
        ref_emb: Array = None,
        ref_labels: Array = None,
        temperature: float = 0.07,
    ) -> Array:
        """`NTXentLoss`: the mean over positive pairs."""
        import torch

        refs = embeddings if ref_emb is None else ref_emb
        if indices_tuple is None:
            masks = masks_of(labels, labels if ref_emb is None else ref_labels, ref_emb is None)
        else:
            masks = [torch.zeros(len(embeddings), len(refs), dtype=torch.bool) for _ in range(2)]
            masks[0][indices_tuple[:2]] = True
            masks[1][indices_tuple[2:]] = True
        return torch.cat(list(pair_losses(embeddings, refs, *masks, temperature))).mean()

    @staticmethod
    def sup_con(
        embeddings: Array,
        labels: Array,
        ref_emb: Array = None,
        ref_labels: Array = None,
        temperature: float = 0.1,
    ) -> Array:
        """`SupConLoss`; against references each positive is compared with all others of them."""
        import torch

        from ntxent.torch import sup_con

        if ref_emb is None:
            return sup_con(embeddings, labels, temperature=temperature)
        found = []
        for row, mine in zip(embeddings, masks_of(labels, ref_labels, False)[0], strict=True):
            itself = torch.eye(len(ref_emb), dtype=torch.bool)[mine]
            rows = row.expand(len(itself), -1)
            pairs = list(pair_losses(rows, ref_emb, itself, ~itself, temperature))
            found += [torch.cat(pairs).mean()] if pairs else []
        return torch.stack(found).mean()


def masks_of(labels: Array, ref_labels: Array, itself: bool) -> list[Array]:
    """Which of the references are positives of a row, and which are negatives."""
    import torch

    same = labels[:, None] == ref_labels
    return [same & ~torch.eye(len(labels), dtype=torch.bool) if itself else same, ~same]


def pair_losses(
    rows: Array, refs: Array, positive: Array, negative: Array, temperature: float
) -> Iterator[Array]:
    """For each row that has a positive, each of its positives against its negatives.

    Row by row, as `info_nce` takes no mask of its own for each query.
    """
    from ntxent.torch import info_nce

    for row, mine, theirs in zip(rows, positive, negative, strict=True):
        keys, others = refs[mine], refs[theirs]
        if len(keys):
            ids = only(keys, others)
            more = others if len(others) else None
            yield info_nce(
                row.expand_as(keys), keys, more, temperature=temperature, ids=ids, reduction="none"
            )


class SoloLearn:
    """solo-learn."""

    @staticmethod
    def simclr_loss_func(z1: Array, z2: Array, temperature: float = 0.1) -> Array:
        """Of two views."""
        from ntxent.torch import nt_xent

        return nt_xent(z1, z2, temperature=temperature)

    @staticmethod
    def manual_simclr_loss_func(
        z: Array, pos_mask: Array, neg_mask: Array, temperature: float = 0.1
    ) -> Array:
        """Of any masks: the mean over rows of the means over positives."""
        import torch

        rows = pair_losses(z, z, pos_mask, neg_mask, temperature)
        return torch.stack([losses.mean() for losses in rows]).mean()

    @staticmethod
    def moco_loss_func(query: Array, key: Array, queue: Array, temperature: float = 0.1) -> Array:
        """The queue alone, (d, K); products as they are."""
        from ntxent.torch import info_nce

        more, ids = queue.T, only(query, queue.T)
        return info_nce(query, key, more, temperature=temperature, ids=ids, normalize=False)

    @staticmethod
    def nnclr_loss_func(nn: Array, p: Array, temperature: float = 0.1) -> Array:
        """Neighbours that look for predictions."""
        from ntxent.torch import info_nce

        return info_nce(nn, p, temperature=temperature)


class InfoNCE:
    """info-nce-pytorch."""

    @staticmethod
    def info_nce(
        query: Array,
        positive_key: Array,
        negative_keys: Array = None,
        temperature: float = 0.1,
        reduction: str = "mean",
        negative_mode: str = "unpaired",
    ) -> Array:
        """Its function."""
        import torch

        from ntxent.torch import info_nce

        ids = None
        if negative_keys is not None:
            paired = negative_mode == "paired"
            ids = torch.zeros(len(query)).long() if paired else only(query, negative_keys)
        options: Any = {"temperature": temperature, "reduction": reduction, "ids": ids}
        return info_nce(query, positive_key, negative_keys, **options)


class SupCon:
    """google-research's supcon; features (N, V, d) of unit length, labels one-hot."""

    @staticmethod
    def contrastive_loss(
        features: Array,
        labels: Array = None,
        temperature: float = 1.0,
        contrast_mode: str = "ALL_VIEWS",
        denominator_mode: str = "ALL",
        scale_by_temperature: bool = True,
    ) -> Array:
        """A value an image: the sum over positives stands outside the logarithm."""
        import torch

        from ntxent.torch import nt_xent, sup_con

        images, views = features.shape[:2]
        z = features.unbind(1)
        options: Any = {"temperature": temperature, "reduction": "none"}
        if labels is None:
            denominator = denominator_mode.lower().removeprefix("only_")
            rows = nt_xent(*z, denominator=denominator, **options)
        elif denominator_mode == "ALL":
            rows = sup_con(torch.cat(z), labels.argmax(1).repeat(views), **options)
        else:  # ONE_POSITIVE
            numbers, flat = labels.argmax(1).repeat(views), torch.cat(z)
            masks = masks_of(numbers, numbers, True)
            found = pair_losses(flat, flat, *masks, temperature)
            rows = torch.stack([losses.mean() for losses in found])
        rows = rows.reshape(views, images)
        found = rows[0] if contrast_mode == "ONE_VIEW" else rows.mean(0)
        return temperature * found if scale_by_temperature else found


class Optax:
    """optax."""

    @staticmethod
    def ntxent(embeddings: Array, labels: Array, temperature: float = 0.07) -> Array:
        """The mean over positive pairs; labels may be traced."""
        import jax
        import jax.numpy as jnp

        from ntxent.jax import info_nce

        def pair(i: Array, j: Array) -> Array:
            ids = jnp.concatenate([labels[i][None], labels])  # equal ids: no negatives
            query, key = embeddings[i][None], embeddings[j][None]
            return info_nce(query, key, embeddings, temperature=temperature, ids=ids)

        rows = jnp.arange(len(embeddings))
        losses = jax.vmap(jax.vmap(pair, (None, 0)), (0, None))(rows, rows)
        positive = (labels[:, None] == labels) & (rows[:, None] != rows)
        return jnp.where(positive, losses, 0).sum() / positive.sum()

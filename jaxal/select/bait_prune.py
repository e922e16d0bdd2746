"""The backward half of BAIT (arXiv 2106.09675): drop what is missed least, in float64.

Removing a sample from M changes M⁻¹ and M⁻¹ F M⁻¹ by matrices of its rank. These are kept as
columns and multiplied out when there are many, so that a removal reads both matrices once.
"""

import numpy as np

__all__ = ["information", "prune"]

_MOST_COLUMNS = 128
# Samples whose removal costs the same but for rounding.
_SAME = 1e-9


def information(hidden: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Sum the information of a batch.

    Args:
      hidden: ``[m, d]`` activations.
      root: ``[m, q, q]`` L, with I = (L Lᵀ) ⊗ h hᵀ.

    Returns:
      ``[q d, q d]`` float64.
    """
    hidden, root = np.asarray(hidden, np.float64), np.asarray(root, np.float64)
    q, dim = root.shape[1], hidden.shape[1]
    covariance = root @ np.swapaxes(root, 1, 2)
    total = np.empty((q, dim, q, dim))
    for a in range(q):
        for b in range(a, q):
            total[a, :, b] = hidden.T @ (covariance[:, a, b, None] * hidden)
            total[b, :, a] = total[a, :, b].T
    return total.reshape(q * dim, q * dim)


def prune(
    start: np.ndarray, everyone: np.ndarray, hidden: np.ndarray, root: np.ndarray, num_kept: int
) -> tuple[np.ndarray, float]:
    """Remove samples from a batch, each time the one that tr(M⁻¹ F) rises least without.

    Args:
      start: ``[q d, q d]`` float64, M without the batch.
      everyone: ``[q d, q d]`` float64, F.
      hidden: ``[m, d]`` activations of the batch.
      root: ``[m, q, q]`` L.
      num_kept: how many are kept.

    Returns:
      Positions ``[num_kept]`` of those that are kept, ascending, and tr(M⁻¹ F) with them.
    """
    hidden, root = np.asarray(hidden, np.float64), np.asarray(root, np.float64)
    count, q = len(hidden), root.shape[1]
    inverse = np.linalg.inv(start + information(hidden, root))
    bound = inverse @ everyone @ inverse
    objective = float(np.sum(inverse * everyone))
    if num_kept == count:
        return np.arange(count), objective
    hidden, inverse, bound = _in_span(hidden, inverse, bound, q)
    inner, outer = _blocks(hidden, root, inverse), _blocks(hidden, root, bound)
    g_columns = k_columns = np.zeros((len(inverse), 0))
    alive = np.arange(count)
    while len(alive) > num_kept:
        rest = np.eye(q) - inner[alive]
        costs = np.trace(np.linalg.solve(rest, outer[alive]), axis1=1, axis2=2)
        same = costs <= costs.min() + _SAME * abs(costs.min())
        position = int(np.flatnonzero(same)[-1])
        gone = alive[position]
        objective += float(costs[position])
        alive = np.delete(alive, position)

        vectors = np.kron(root[gone], hidden[gone][:, None])
        whiten = np.linalg.inv(np.linalg.cholesky(np.eye(q) - inner[gone])).T
        g = inverse @ vectors + g_columns @ (g_columns.T @ vectors)
        k = bound @ vectors + g_columns @ (k_columns.T @ vectors)
        k = k + k_columns @ (g_columns.T @ vectors)
        g, k = g @ whiten, k @ whiten
        k = k + g @ (whiten.T @ outer[gone] @ whiten) / 2
        g_columns = np.concatenate([g_columns, g], axis=1)
        k_columns = np.concatenate([k_columns, k], axis=1)
        if g_columns.shape[1] >= _MOST_COLUMNS:
            cross = g_columns @ k_columns.T
            inverse, bound = inverse + g_columns @ g_columns.T, bound + cross + cross.T
            g_columns = k_columns = np.zeros((len(inverse), 0))

        seen = np.swapaxes(root, 1, 2)
        g, k = seen @ _per_class(hidden, g, q), seen @ _per_class(hidden, k, q)
        both = k @ np.swapaxes(g, 1, 2)
        inner = inner + g @ np.swapaxes(g, 1, 2)
        outer = outer + both + np.swapaxes(both, 1, 2)
    return alive, objective


def _in_span(
    hidden: np.ndarray, inverse: np.ndarray, bound: np.ndarray, q: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Go over to coordinates in the span of the batch's activations, where these are fewer."""
    count, dim = hidden.shape
    if count >= dim:
        return hidden, inverse, bound
    basis = np.linalg.qr(hidden.T)[0]

    def within(matrix: np.ndarray) -> np.ndarray:
        half = (matrix.reshape(-1, dim) @ basis).reshape(q * dim, q * count)
        return (half.T.reshape(-1, dim) @ basis).reshape(q * count, q * count)

    return hidden @ basis, within(inverse), within(bound)


def _blocks(hidden: np.ndarray, root: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Vᵀ A V of each sample, ``[m, q, q]``."""
    count, dim = hidden.shape
    q = root.shape[1]
    between = np.empty((count, q, q))
    for a, rows in enumerate(matrix.reshape(q, dim, q * dim)):
        between[:, a] = np.einsum("mbd,md->mb", (hidden @ rows).reshape(count, q, dim), hidden)
    return np.swapaxes(root, 1, 2) @ between @ root


def _per_class(hidden: np.ndarray, columns: np.ndarray, q: int) -> np.ndarray:
    """Multiply each class's rows of ``columns [q d, r]`` by the activations: ``[m, q, r]``."""
    found = hidden @ np.moveaxis(columns.reshape(q, hidden.shape[1], -1), 0, 1).reshape(
        hidden.shape[1], -1
    )
    return found.reshape(len(hidden), q, -1)

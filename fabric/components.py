"""What belongs together, from pairs that do: numpy forms of two small graph questions."""

import numpy as np

from trainmaster.fabric.model import Floats, Ints


def components(count: int, a: Ints, b: Ints) -> Ints:
    """[count] The number of each one's connected component, 0, 1, 2 … by the smallest member.

    >>> components(5, np.array([0, 3]), np.array([2, 4])).tolist()
    [0, 1, 0, 2, 2]
    """
    label = np.arange(count)
    while len(a):
        before = label.copy()
        least = np.minimum(label[a], label[b])
        np.minimum.at(label, a, least)
        np.minimum.at(label, b, least)
        label = np.minimum(label, label[label])
        if np.array_equal(before, label):
            break
    return np.unique(label, return_inverse=True)[1].astype(np.int32).reshape(-1)


def shared(member: Ints, group: Ints, weight: Floats, *, reach: int) -> tuple[Ints, Ints, Floats]:
    """Pairs of members that meet in groups, and the sum over these groups of the smaller of both weights.

    Args:
        member: [entries] non-negative numbers; a member is in a group at most once.
        group: [entries] which group the entry is about.
        weight: [entries] how strongly the member is in it.
        reach: in a group of more members than this, each meets only as many that follow it.
    """
    order = np.lexsort((member, group))
    member, group, weight = member[order].astype(np.int64), group[order], weight[order]
    size = int(member.max(initial=-1)) + 1
    codes, sums = [], []
    for step in range(1, reach + 1):
        same = np.flatnonzero(group[step:] == group[:-step])
        if not len(same):
            break
        codes.append(member[same] * size + member[same + step])
        sums.append(np.minimum(weight[same], weight[same + step]))
    if not codes:
        nothing = np.zeros(0, dtype=np.int32)
        return nothing, nothing, np.zeros(0)
    pairs, which = np.unique(np.concatenate(codes), return_inverse=True)
    total = summed(which.reshape(-1), np.concatenate(sums), len(pairs))
    return (pairs // size).astype(np.int32), (pairs % size).astype(np.int32), total


def summed(groups: Ints, weights: Floats | None, count: int) -> Floats:
    """[count] The sum of the weights in each group; without weights how many there are."""
    return np.bincount(groups, weights=weights, minlength=count).astype(np.float64)


def tally(a: Ints, b: Ints, weight: Floats | None = None) -> tuple[Ints, Ints, Floats]:
    """Each pair (a, b) that occurs, once, in order, and how often or with what weight in all."""
    width = int(b.max(initial=-1)) + 1
    pairs, which = np.unique(a.astype(np.int64) * width + b, return_inverse=True)
    total = summed(which.reshape(-1), weight, len(pairs))
    width = max(width, 1)
    return (pairs // width).astype(np.int32), (pairs % width).astype(np.int32), total


def majority(count: int, voter: Ints, choice: Ints, weight: Floats | None = None) -> Ints:
    """[count] What most of each one's votes are for; the smallest choice of equals, -1 without a vote.

    >>> majority(3, np.array([0, 0, 0, 2, 2]), np.array([5, 4, 5, 9, 8])).tolist()
    [5, -1, 8]
    """
    voters, choices, votes = tally(voter, choice, weight)
    order = np.lexsort((choices, -votes, voters))
    voters, choices = voters[order], choices[order]
    won = np.full(count, -1, dtype=np.int32)
    first = np.r_[True, voters[1:] != voters[:-1]] if len(voters) else np.zeros(0, dtype=bool)
    won[voters[first]] = choices[first]
    return won

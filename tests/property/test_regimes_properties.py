"""Filtered probabilities: whatever the model and the observations, they are probabilities and never look ahead."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlake.regimes.hmm import GaussianHmm, filtered_probabilities

WEIGHT = st.one_of(st.just(0.0), st.floats(0.01, 1.0))


@st.composite
def models(draw: st.DrawFn) -> GaussianHmm:
    states = draw(st.integers(2, 3))

    def shares() -> tuple[float, ...]:
        weights = np.array(draw(st.lists(WEIGHT, min_size=states, max_size=states)))
        weights[draw(st.integers(0, states - 1))] += 0.5
        return tuple((weights / weights.sum()).tolist())

    return GaussianHmm(
        shares(),
        tuple(shares() for _ in range(states)),
        tuple(draw(st.lists(st.floats(-5, 5), min_size=states, max_size=states))),
        tuple(sorted(draw(st.lists(st.floats(1e-3, 50), min_size=states, max_size=states)))),
    )


@settings(max_examples=60)
@given(models(), st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=30), st.data())
def test_filtering_gives_probabilities_that_never_look_ahead(
    model: GaussianHmm, observed: list[float], data: st.DataObject
) -> None:
    all_of_it = filtered_probabilities(model, np.array(observed))
    assert np.isfinite(all_of_it).all()
    assert (all_of_it >= 0).all()
    np.testing.assert_allclose(all_of_it.sum(axis=1), 1.0, rtol=1e-9)
    cut = data.draw(st.integers(1, len(observed)))
    assert np.array_equal(filtered_probabilities(model, np.array(observed[:cut])), all_of_it[:cut])


@settings(max_examples=30)
@given(models(), st.lists(st.floats(-10, 10), min_size=1, max_size=20))
def test_names_of_states_do_not_matter(model: GaussianHmm, observed: list[float]) -> None:
    back = list(range(model.states))[::-1]
    mirrored = GaussianHmm(
        tuple(model.start[i] for i in back),
        tuple(tuple(model.transition[i][j] for j in back) for i in back),
        tuple(model.means[i] for i in back),
        tuple(model.variances[i] for i in back),
    )
    straight = filtered_probabilities(model, np.array(observed))
    np.testing.assert_allclose(filtered_probabilities(mirrored, np.array(observed))[:, ::-1], straight, rtol=1e-7, atol=1e-12)

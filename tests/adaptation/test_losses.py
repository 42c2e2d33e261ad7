"""The losses give the numbers and gradients that their formulas give by hand."""

import math

import pytest
import torch
from torch import Tensor

from fmtda.adaptation.losses import (
    alignment_loss,
    confident_cross_entropy,
    discrepancy,
    information_maximisation,
    local_classifier_loss,
    trimmed,
    trimmed_mean,
)


def random_logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestDiscrepancy:
    def test_is_the_mean_over_batch_and_classes(self):
        p = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
        q = torch.tensor([[0.0, 1.0], [0.25, 0.75]])
        assert discrepancy(p, q).item() == pytest.approx((1 + 1 + 0.25 + 0.25) / 4)

    def test_compares_one_classifier_with_many(self):
        p, q = random_logits(5, 3).softmax(-1), random_logits(4, 5, 3, seed=1).softmax(-1)
        torch.testing.assert_close(discrepancy(p, q), torch.stack([discrepancy(p, one) for one in q]))

    def test_of_equal_classifiers_has_no_gradient(self):
        p = random_logits(5, 3).softmax(-1).requires_grad_()
        discrepancy(p, p.detach()).backward()
        assert not p.grad.any()


class TestLocalClassifierLoss:
    def test_by_hand(self):
        local = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])  # p_l = (1/4, 3/4), (1/2, 1/2)
        global_ = torch.tensor([[math.log(4), 0.0], [0.0, math.log(9)]])  # p_g = (4/5, 1/5), (1/10, 9/10)
        loss = local_classifier_loss(local, global_, torch.tensor([0.5, 1.0]), discrepancy_weight=2.0)
        cross_entropy = (0.5 * math.log(4) + 1.0 * math.log(2)) / 2
        distance = (0.55 + 0.55 + 0.4 + 0.4) / 4
        assert loss.cross_entropy.item() == pytest.approx(cross_entropy)
        assert loss.discrepancy.item() == pytest.approx(distance)
        assert loss.total.item() == pytest.approx(cross_entropy - 2 * distance)

    def test_gradient(self):
        global_logits, weights = random_logits(6, 4, seed=1), torch.linspace(0, 1, 6, dtype=torch.float64)
        local_logits = random_logits(6, 4).requires_grad_()
        assert torch.autograd.gradcheck(
            lambda local: local_classifier_loss(local, global_logits, weights, 0.7).total, local_logits
        )

    def test_leaves_the_global_classifier_alone(self):
        global_logits, local_logits = (
            random_logits(6, 4).requires_grad_(),
            random_logits(6, 4, seed=1).requires_grad_(),
        )
        local_classifier_loss(local_logits, global_logits, torch.ones(6), 1.0).total.backward()
        assert global_logits.grad is None
        assert local_logits.grad.any()

    def step(self, weight: float, discrepancy_weight: float):
        """Eq. 5's parts before and after one gradient step from near the global classifier."""
        global_logits = 2 * random_logits(32, 5)
        local_logits = (global_logits + 0.1 * random_logits(32, 5, seed=1)).requires_grad_()
        weights = torch.full((32,), weight)
        before = local_classifier_loss(local_logits, global_logits, weights, discrepancy_weight)
        before.total.backward()
        stepped = (local_logits - 0.5 * local_logits.grad).detach()
        return before, local_classifier_loss(stepped, global_logits, weights, discrepancy_weight)

    def test_a_step_departs_from_the_global_classifier_where_examples_look_unlike_the_source(self):
        before, after = self.step(weight=0.0, discrepancy_weight=0.1)
        assert after.discrepancy > before.discrepancy
        assert after.total < before.total

    def test_a_step_keeps_to_its_decisions_where_examples_look_like_the_source(self):
        before, after = self.step(weight=1.0, discrepancy_weight=0.1)
        assert after.cross_entropy < before.cross_entropy
        assert after.total < before.total


class TestAlignmentLoss:
    def test_by_hand(self):
        global_probabilities = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
        local_probabilities = torch.tensor([[[0.75, 0.25], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]])
        weights = torch.tensor([[1.0, 0.5], [1.0, 0.2]])
        expected = (1.0 * 0.25 + 0.5 * 1.0 + 1.0 * 0.0 + 0.2 * 0.5) / 4
        assert alignment_loss(global_probabilities, local_probabilities, weights).item() == pytest.approx(expected)

    def test_is_the_mean_discrepancy_where_all_weights_are_one(self):
        p, q = random_logits(5, 3).softmax(-1), random_logits(4, 5, 3, seed=1).softmax(-1)
        torch.testing.assert_close(alignment_loss(p, q, torch.ones(4, 5)), discrepancy(p, q).mean())

    def test_gradient_in_both_classifiers(self):
        weights = random_logits(3, 6).sigmoid()
        global_logits, local_logits = random_logits(6, 4), random_logits(3, 6, 4, seed=1)
        assert torch.autograd.gradcheck(
            lambda p, q: alignment_loss(p.softmax(-1), q.softmax(-1), weights),
            (global_logits.requires_grad_(), local_logits.requires_grad_()),
        )

    def test_a_step_brings_the_classifiers_together(self):
        global_logits = random_logits(8, 4).requires_grad_()
        local_probabilities = random_logits(3, 8, 4, seed=1).softmax(-1)

        def loss(logits: Tensor) -> Tensor:
            return alignment_loss(logits.softmax(-1), local_probabilities, torch.ones(3, 8))

        before = loss(global_logits)
        before.backward()
        assert loss(global_logits - global_logits.grad) < before

    def test_without_its_extremes_by_hand(self):
        global_probabilities = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
        distances = torch.tensor([[0.1, 0.2], [0.5, 0.0], [0.2, 0.3], [0.3, 1.0], [0.4, 0.4]])
        signs = torch.stack([distances, -distances], dim=-1) * torch.tensor([[-1.0, -1.0]])
        local_probabilities = global_probabilities + signs
        weights = torch.tensor([[1.0, 1.0], [0.2, 1.0], [1.0, 0.5], [1.0, 0.1], [0.5, 1.0]])
        # weighted, by example: 0.1, 0.1, 0.2, 0.3, 0.2 and 0.2, 0, 0.15, 0.1, 0.4
        expected = ((0.1 + 0.2 + 0.2) / 3 + (0.2 + 0.15 + 0.1) / 3) / 2
        loss = alignment_loss(global_probabilities, local_probabilities, weights, robust_share=0.2)
        assert loss.item() == pytest.approx(expected)

    @pytest.mark.parametrize("bad", [1e6, -1e6])
    def test_one_bad_client_of_five_stays_within_what_the_others_say(self, bad):
        p, q = random_logits(6, 3).softmax(-1), random_logits(5, 6, 3, seed=1).softmax(-1)
        honest = (p - q[:4]).abs().mean(-1)
        q[4] = bad
        loss = alignment_loss(p, q, torch.ones(5, 6), robust_share=0.2)
        assert honest.min(dim=0).values.mean() <= loss <= honest.max(dim=0).values.mean()
        assert alignment_loss(p, q, torch.ones(5, 6)) > 1e4

    def test_what_is_left_out_gets_no_gradient(self):
        q = random_logits(5, 6, 3, seed=1).softmax(-1)
        q[4] += 100
        q.requires_grad_()
        alignment_loss(random_logits(6, 3).softmax(-1), q, torch.ones(5, 6), robust_share=0.2).backward()
        assert not q.grad[4].any()
        assert q.grad[:4].any()

    @pytest.mark.parametrize("clients", [1, 4])
    def test_few_clients_are_all_heard_bit_by_bit(self, clients):
        p, q = random_logits(6, 3).softmax(-1), random_logits(clients, 6, 3, seed=1).softmax(-1)
        weights = random_logits(clients, 6).sigmoid()
        assert torch.equal(alignment_loss(p, q, weights, robust_share=0.2), alignment_loss(p, q, weights))

    def test_clients_may_count_for_less(self):
        p_g, p_l = random_logits(6, 4).softmax(-1), random_logits(3, 6, 4, seed=1).softmax(-1)
        w = random_logits(3, 6, seed=2).sigmoid()
        client_weights = torch.tensor([1.0, 0.25, 1.0])
        distances = (p_g - p_l).abs().mean(-1)
        expected = sum(c * (w[i] * distances[i]).mean() for i, c in enumerate([1, 0.25, 1])) / 2.25
        assert alignment_loss(p_g, p_l, w, 0.0, client_weights).item() == pytest.approx(expected.item())

    def test_a_client_that_hardly_counts_leaves_the_others_as_they_were(self):
        p_g, p_l = random_logits(6, 4).softmax(-1), random_logits(3, 6, 4, seed=1).softmax(-1)
        w = random_logits(3, 6, seed=2).sigmoid()
        without = alignment_loss(p_g, p_l[:2], w[:2]).item()
        assert alignment_loss(p_g, p_l, w, 0.0, torch.tensor([1, 1, 1e-9])).item() == pytest.approx(without)
        assert alignment_loss(p_g, p_l, w).item() != pytest.approx(without)


class TestTrimmedMean:
    @pytest.mark.parametrize("bad", [-1e9, 1e9], ids=["low", "high"])
    def test_one_bad_client_of_five_stays_bounded_whoever_counts_for_less(self, bad):
        values = random_logits(5, 7, seed=3)
        values[4] = bad
        for lighter in range(5):
            weights = torch.ones(5).index_fill(0, torch.tensor([lighter]), 0.25)
            mean = trimmed_mean(values, 0.2, weights)
            assert (mean >= values[:4].min(dim=0).values).all()
            assert (mean <= values[:4].max(dim=0).values).all()

    def test_a_client_that_counts_for_less_is_not_left_out_for_that(self):
        values = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]], dtype=torch.float64)
        mean = trimmed_mean(values, 0.2, torch.tensor([1, 1, 0.25, 1, 1]))
        assert mean.item() == pytest.approx((2 + 0.25 * 3 + 4) / 2.25)

    def test_is_scipys(self):
        from scipy.stats import trim_mean

        values = random_logits(11, 4)
        expected = torch.from_numpy(trim_mean(values.numpy(), 0.2, axis=0))
        torch.testing.assert_close(trimmed_mean(values, 0.2), expected)

    @pytest.mark.parametrize(("count", "share", "expected"), [(4, 0.2, 0), (5, 0.2, 1), (10, 0.2, 2), (100, 0.29, 29)])
    def test_leaves_out_a_whole_number_rounded_down(self, count, share, expected):
        assert trimmed(count, share) == expected

    @pytest.mark.parametrize("share", [-0.1, 0.5])
    def test_refuses_to_leave_out_everything(self, share):
        with pytest.raises(ValueError, match="below 0.5"):
            trimmed_mean(torch.ones(4, 2), share)


class TestInformationMaximisation:
    def test_is_lowest_where_predictions_are_certain_and_balanced(self):
        assert information_maximisation(1e4 * torch.eye(4)).item() == pytest.approx(-math.log(4))

    @pytest.mark.parametrize("logits", [torch.zeros(6, 4), 1e4 * torch.eye(4)[[2] * 6]])
    def test_is_zero_where_predictions_are_all_the_same(self, logits):
        assert information_maximisation(logits).item() == pytest.approx(0, abs=1e-6)

    def test_by_hand(self):
        logits = torch.tensor([[0.75, 0.25], [0.25, 0.75]]).log()
        entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
        assert information_maximisation(logits).item() == pytest.approx(entropy - math.log(2))

    def test_equal_shares_are_the_default_but_for_log_c(self):
        logits = random_logits(6, 4)
        equal = information_maximisation(logits, torch.full((4,), 0.25, dtype=logits.dtype))
        assert equal.item() == pytest.approx(information_maximisation(logits).item() + math.log(4))

    def test_is_lowest_where_certain_predictions_have_the_expected_shares(self):
        shares = torch.tensor([0.75, 0.25])
        in_shares = information_maximisation(1e4 * torch.eye(2)[[0, 0, 0, 1]], shares)
        assert in_shares.item() == pytest.approx(0, abs=1e-6)
        assert information_maximisation(1e4 * torch.eye(2), shares).item() == pytest.approx(math.log(2 / 3**0.5))

    @pytest.mark.parametrize("shares", [None, torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)])
    def test_gradient(self, shares):
        assert torch.autograd.gradcheck(
            lambda x: information_maximisation(x, shares), random_logits(6, 4).requires_grad_()
        )

    def test_gradient_is_finite_for_classes_nobody_predicts(self):
        logits = (1e4 * torch.eye(4)[:2]).requires_grad_()
        information_maximisation(logits).backward()
        assert logits.grad.isfinite().all()


class TestConfidentCrossEntropy:
    teacher = torch.tensor([[0.95, 0.05], [0.6, 0.4], [0.02, 0.98], [0.9, 0.1]])

    def test_is_the_mean_over_the_confident_examples(self):
        logits = torch.tensor([[0.0, 0.0], [5.0, 0.0], [math.log(3), 0.0], [5.0, 0.0]])
        loss = confident_cross_entropy(logits, self.teacher, threshold=0.9)  # exactly 0.9 is not enough
        assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2)

    def test_without_confident_examples_is_zero_with_zero_gradient(self):
        logits = torch.randn(4, 2, requires_grad=True)
        loss = confident_cross_entropy(logits, self.teacher, threshold=0.99)
        loss.backward()
        assert loss.item() == 0
        assert torch.equal(logits.grad, torch.zeros(4, 2))

    def test_gradient_reaches_only_the_student_and_the_confident(self):
        logits, teacher = torch.zeros(4, 2, requires_grad=True), self.teacher.clone().requires_grad_()
        confident_cross_entropy(logits, teacher, threshold=0.9).backward()
        assert teacher.grad is None
        assert logits.grad.any(dim=1).tolist() == [True, False, True, False]

"""What can be said without simulating: one step, what a group sees, the flow, and how long a rare approach takes to be found.

p [A] is a softmax policy over A approaches, θ [A] its logits, r [A] the chance that an approach is paid, s = Σ p_a r_a.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats


def step_on_sample(p_A: np.ndarray, action: int, advantage: float, rate: float) -> float:
    """Δp of the sampled action after one REINFORCE step on it, to first order in the rate.

    θ moves by ηA(e_a − p), so Δp_a = ηA · p_a · [(1 − p_a)² + Σ_{b≠a} p_b²].
    """
    others = np.delete(p_A, action)
    return rate * advantage * p_A[action] * ((1 - p_A[action]) ** 2 + (others**2).sum())


def step_on_uniform(approaches: np.ndarray) -> np.ndarray:
    """`step_on_sample` / (ηA) for a uniform policy over N approaches: (1/N)(1 − 1/N). Its peak is N = 2, so it does not favour many."""
    return (1 - 1 / approaches) / approaches


def seen(p: np.ndarray | float, group: int) -> np.ndarray | float:
    """The chance that an approach of mass p is among G samples."""
    return 1 - (1 - p) ** group


def mixed(s: np.ndarray, group: int) -> np.ndarray:
    """The chance that G samples, each right with chance s, are neither all right nor all wrong, so that they give a signal."""
    return 1 - s**group - (1 - s) ** group


def group_signal(s: float, group: int) -> float:
    """h_G(s) = E √(k(G − k)) / G, with k ~ Binomial(G, s) right answers among G: the size of GRPO's expected step.

    Of k right ones each has the advantage √((G − k)/k), of the wrong ones −√(k/(G − k)), with the population's deviation. It tends to
    √(s(1 − s)) for large groups, and to s·√(G − 1) for s ≪ 1/G, where a success is alone in its group.
    """
    k = np.arange(group + 1)
    return float((stats.binom.pmf(k, group, s) * np.sqrt(k * (group - k))).sum() / group)


def grpo_gradient(p_A: np.ndarray, right_A: np.ndarray, group: int) -> np.ndarray:
    """The expected change of the logits under GRPO, [A], where an approach is always right or always wrong (`right_A`, bool).

    Advantages of a group sum to zero, so the policy's own term drops out, and the right approaches share h_G(s) by mass, as do the
    wrong ones −h_G(s).
    """
    s = float(p_A[right_A].sum())
    if not 0 < s < 1:
        return np.zeros_like(p_A)
    return group_signal(s, group) * np.where(right_A, p_A / s, -p_A / (1 - s))


def flow(theta_A: jax.Array, r_A: jax.Array, times: jax.Array, *, entropy: float = 0.0, kl: float = 0.0) -> jax.Array:
    """Logits [T, A] at the given times under exact gradient flow of E r + entropy · H(p) − kl · KL(p ‖ p_0), from θ at times[0].

    dθ_a/dt = p_a (u_a − Σ_b p_b u_b) with u = r − entropy · log p − kl · log(p/p_0). Integrated by Runge–Kutta of order 4 with the steps
    that `times` gives: keep them below about 1.
    """
    start_A = jax.nn.log_softmax(theta_A)

    def slope(theta_A: jax.Array) -> jax.Array:
        log_p_A = jax.nn.log_softmax(theta_A)
        p_A = jnp.exp(log_p_A)
        u_A = r_A - entropy * log_p_A - kl * (log_p_A - start_A)
        return p_A * (u_A - p_A @ u_A)

    def advance(theta_A: jax.Array, dt: jax.Array) -> tuple[jax.Array, jax.Array]:
        one = slope(theta_A)
        two = slope(theta_A + dt / 2 * one)
        three = slope(theta_A + dt / 2 * two)
        four = slope(theta_A + dt * three)
        theta_A = theta_A + dt / 6 * (one + 2 * two + 2 * three + four)
        return theta_A, theta_A

    _, later_TA = jax.lax.scan(advance, theta_A, jnp.diff(times))
    return jnp.concatenate([theta_A[None], later_TA])


def kl_optimum(p_A: np.ndarray, r_A: np.ndarray, kl: float) -> np.ndarray:
    """Where the flow with a KL term ends: p* ∝ p_0 · exp(r/kl)."""
    weights = p_A * np.exp((r_A - r_A.max()) / kl)
    return weights / weights.sum()


def discovery_time(p0: float, rate: float, *, normalised: bool, target: float = 0.5) -> float:
    """Steps until one right approach of starting mass p0, beside one wrong one, has the mass `target` under gradient flow.

    Plain advantages: dp/dt = 2η p²(1 − p)², so the time is [F(target) − F(p0)]/2η with F(p) = 1/(1 − p) − 1/p + 2 ln(p/(1 − p)), about
    1/(2ηp0) for a rare approach. Divided by the group's deviation (GRPO, large groups): dp/dt = 2η (p(1 − p))^{3/2} and
    F(p) = 2(2p − 1)/√(p(1 − p)), about 1/(η√p0): normalisation finds rare approaches sooner.
    """

    def integral(p: float) -> float:
        if normalised:
            return 2 * (2 * p - 1) / math.sqrt(p * (1 - p))
        return 1 / (1 - p) - 1 / p + 2 * math.log(p / (1 - p))

    return (integral(target) - integral(p0)) / (2 * rate)


def clipped_growth_time(p0: float, epsilon_high: float, target: float = 0.5) -> float:
    """Rounds until p0 can have become `target` where a round's ratio stays within 1 + ε_high: ln(target/p0)/ln(1 + ε_high).

    It holds where nothing else is pushed down. With a baseline it does not: a common wrong approach may lose the share ε_low of its own
    mass in a round, and a rare one gets that (`docs/theory.md` shows it failing).
    """
    return math.log(target / p0) / math.log1p(epsilon_high)


def pass_at_k(s_Q: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Mean over questions of 1 − (1 − s)^k, for each k."""
    return (1 - (1 - s_Q[None]) ** np.asarray(k)[:, None]).mean(axis=1)


def entropy(p_A: np.ndarray) -> float:
    """Of a policy, in nats."""
    return float(-(p_A * np.log(np.maximum(p_A, 1e-300))).sum())

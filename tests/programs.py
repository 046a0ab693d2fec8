"""Programs of devices that aren't here, made of shapes alone."""

import jax
import jax.numpy as jnp

from jaxpolya.decode.burst import make_burst
from jaxpolya.decode.lanes import Rows, abstract_decode_copy, make_empty


def lowered_burst(plan, mesh):
    weights = abstract_decode_copy(plan.config, mesh, jnp.dtype(plan.dtype))
    rows = Rows(*(jax.ShapeDtypeStruct((plan.lanes, plan.rows), dtype) for dtype in [jnp.int32] * 4 + [jnp.uint32]))
    scalar, key = jax.ShapeDtypeStruct((), jnp.float32), jax.eval_shape(lambda: jax.random.key(0))
    lanes = make_empty(plan, mesh).eval_shape()
    return make_burst(plan, mesh, plan.suffix).lower(weights, lanes, rows, key, scalar, scalar)

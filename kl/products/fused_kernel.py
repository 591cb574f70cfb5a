"""The Triton source of `kl.products.fused`: a tile of K(x, z) goes from inner products to K(x, z) v in registers.

Only `kl.products.fused` imports this file, when it needs it, because not every torch comes with triton.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["m", "p", "c", "span"])
def fused_product(
    x,  # rows, of the kind that KIND names, shape: (m, x_stride)
    z,  # shape: (p, z_stride)
    x_sq,  # |x_i|^2, for codes of the centred integers, shape: (m,)
    z_sq,  # shape: (p,)
    x_scale,  # s_i of digits, else |x_i|^2, shape: (m,)
    z_scale,  # shape: (p,)
    same,  # for each row of x the index of the same row in z, or a number outside 0..p-1, shape: (m,)
    v,  # float32, shape: (p, c)
    out,  # float32, shape: (parts, m, c)
    m,
    p,
    c,
    d,
    x_stride,
    z_stride,
    unit,  # r^2 of codes, else unused
    scale,  # of the formula
    power,  # of the formula
    span,  # rows of z in a part, a multiple of COLUMNS
    KIND: tl.constexpr,  # codes, digits, floats, rounded or few
    FORMULA: tl.constexpr,
    DEPTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    FEATURES: tl.constexpr,
    OUTPUTS: tl.constexpr,
):
    """out[part, i, k] = sum_j K(x_i, z_j) v_jk, for one tile of rows i and for the rows j of one part of z.

    Indices of rows are int64, because their product with a stride may leave int32. Beyond the last row of x or z the
    last row is read again; its products are not stored, or its weights are 0.
    """
    part = tl.program_id(1)
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = rows < m
    i = tl.minimum(rows, m - 1)
    row_sq, row_scale, column_of_same = tl.load(x_sq + i), tl.load(x_scale + i), tl.load(same + i)
    outputs = tl.arange(0, OUTPUTS)
    total = tl.zeros((ROWS, OUTPUTS), tl.float32)
    for start in range(part * span, tl.minimum(part * span + span, p), COLUMNS):
        columns = tl.arange(0, COLUMNS).to(tl.int64) + start
        j = tl.minimum(columns, p - 1)
        xs, zs = x + i * x_stride, z + j * z_stride
        if KIND == "few":
            sq_dist = direct(xs, zs, d, ROWS, COLUMNS)
        elif KIND == "codes":
            inner = inner_products(xs, zs, d, tl.zeros((ROWS, COLUMNS), tl.int32), "ieee", FEATURES)
            sq_dist = (row_sq[:, None] - 2 * inner + tl.load(z_sq + j)[None, :]).to(tl.float32) * unit
        else:
            if KIND == "digits":
                inner = products_of_order(xs, zs, d, 2, ROWS, COLUMNS, FEATURES)
                inner = inner * 0.00390625 + products_of_order(xs, zs, d, 1, ROWS, COLUMNS, FEATURES)
                inner = inner * 0.00390625 + products_of_order(xs, zs, d, 0, ROWS, COLUMNS, FEATURES)
                inner *= row_scale[:, None] * tl.load(z_scale + j)[None, :]
            elif KIND == "rounded":  # TF32 units lose nothing of bfloat16 values
                inner = inner_products(xs, zs, d, tl.zeros((ROWS, COLUMNS), tl.float32), "tf32", FEATURES)
            else:
                inner = inner_products(xs, zs, d, tl.zeros((ROWS, COLUMNS), tl.float32), "ieee", FEATURES)
            sq_dist = row_sq[:, None] - 2 * inner + tl.load(z_sq + j)[None, :]
            sq_dist = tl.where(sq_dist < 0, 0.0, sq_dist)  # keeps NaN, which a maximum would hide
        sq_dist = tl.where(column_of_same[:, None] == columns[None, :], 0.0, sq_dist)
        used = (columns < p)[:, None] & (outputs < c)[None, :]
        weights = tl.load(v + j[:, None] * c + outputs[None, :], mask=used, other=0.0)
        if DEPTH == 0:
            values = radial_values(sq_dist, scale, power, FORMULA)
        elif KIND == "digits":
            values = relu_values(sq_dist, row_sq, tl.load(z_sq + j), scale, power, FORMULA, DEPTH)
        else:
            values = relu_values(sq_dist, row_scale, tl.load(z_scale + j), scale, power, FORMULA, DEPTH)
        total = tl.dot(values, weights, total, input_precision="ieee")
    places = out + (part.to(tl.int64) * m + rows)[:, None] * c + outputs[None, :]
    tl.store(places, total, mask=inside[:, None] & (outputs < c)[None, :])


@triton.jit
def direct(xs, zs, d, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """|x_i - z_j|^2 of few features, feature by feature, without cancellation."""
    sq_dist = tl.zeros((ROWS, COLUMNS), tl.float32)
    for k in range(d):
        difference = tl.load(xs + k)[:, None] - tl.load(zs + k)[None, :]
        sq_dist += difference * difference
    return sq_dist


@triton.jit
def inner_products(xs, zs, d, total, PRECISION: tl.constexpr, FEATURES: tl.constexpr):
    """total + sum_{k < d} x_ik z_jk, in the dtype of `total`, for rows that begin at xs and zs."""
    features = tl.arange(0, FEATURES)
    for start in range(0, d, FEATURES):
        k, left = start + features, d - start
        a = tl.load(xs[:, None] + k[None, :], mask=(features < left)[None, :], other=0)
        b = tl.load(zs[None, :] + k[:, None], mask=(features < left)[:, None], other=0)
        total = tl.dot(a, b, total, input_precision=PRECISION, out_dtype=total.dtype)
    return total


@triton.jit
def products_of_order(
    xs, zs, d, ORDER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, FEATURES: tl.constexpr
):
    """sum_{a + b = ORDER} <d_a, d'_b>, exact, as float32; a row holds its digits 0, 1 and 2, of d features each."""
    total = tl.zeros((ROWS, COLUMNS), tl.int32)
    for digit in tl.static_range(ORDER + 1):
        total = inner_products(xs + digit * d, zs + (ORDER - digit) * d, d, total, "ieee", FEATURES)
    return total.to(tl.float32)


@triton.jit
def radial_values(sq_dist, scale, power, FORMULA: tl.constexpr):
    """The formulas of `kl.kernels.radial`; `kl.products.fused.FORMULAS` has their scales."""
    if FORMULA == "gaussian":
        values = tl.exp(-scale * sq_dist)
    elif FORMULA == "laplacian":
        values = tl.exp(-scale * tl.sqrt(sq_dist))
    elif FORMULA == "matern32":
        t = scale * tl.sqrt(sq_dist)
        values = (1 + t) * tl.exp(-t)
    elif FORMULA == "matern52":
        t = scale * tl.sqrt(sq_dist)
        values = (1 + t + t * t / 3) * tl.exp(-t)
    elif FORMULA == "exponential-power":
        values = tl.exp(-tl.exp(power * tl.log(scale * sq_dist)))  # log 0 is -inf, and the value 1
    else:
        tl.static_assert(FORMULA == "inverse-multiquadric")
        values = tl.rsqrt(1 + scale * sq_dist)
    return values


@triton.jit
def relu_values(sq_dist, x_sq, z_sq, sq_bias, of_zero, FORMULA: tl.constexpr, DEPTH: tl.constexpr):
    """The recursion of `kl.kernels.relu` in v = 1 - u; it starts from the distance, which is exactly 0 for equal rows.

    |x - z|^2 = (|x| - |z|)^2 + 2 |x||z| v.
    """
    x, z = tl.sqrt(x_sq)[:, None], tl.sqrt(z_sq)[None, :]
    norms = x * z
    v = (sq_dist - (x - z) * (x - z)) / tl.where(norms > 0, 2 * norms, 1.0)
    v = tl.where(v < 0, 0.0, tl.where(v > 2, 2.0, v))
    covariance = norms * (1 - v)
    tangent = covariance + sq_bias
    for _ in range(1, DEPTH):
        share = angle(v) * 0.318309886  # theta / pi
        v += share * (1 - v) - tl.sqrt(v * (2 - v)) * 0.318309886
        v = tl.where(v < 0, 0.0, v)
        covariance = norms * (1 - v)
        tangent = tangent * (1 - share) + covariance + sq_bias
    if FORMULA == "relu-ntk":
        values = tl.where(norms == 0, of_zero, tangent)
    else:
        tl.static_assert(FORMULA == "relu-nngp")
        values = covariance
    return values


@triton.jit
def angle(v):
    """acos(1 - v) for v in 0..2, also near 0: the polynomial of kl/compiled/kernel_values.cpp."""
    wide = v > 1
    t = 0.5 * tl.where(wide, 2 - v, v)
    p = 0.126604223 * t - 0.141247548
    p = p * t + 0.111685587
    p = p * t - 0.00881148468
    p = p * t + 0.0362279991
    p = p * t + 0.0440398399
    p = p * t + 0.0750307444
    p = p * t + 0.166666069
    p = p * t + 1
    twice = 2 * tl.sqrt(t) * p
    return tl.where(wide, 3.14159265 - twice, twice)

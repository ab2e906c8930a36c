//! Arithmetic on a lattice that does not visit its points one by one.

/// Partial quotients of the continued fraction of a / b; `None` if a and b have a common
/// divisor.
pub(crate) fn quotients(a: u32, b: u32) -> Option<Vec<u32>> {
    let (mut a, mut b) = (a, b);
    let mut quotients = Vec::new();
    while b != 0 {
        quotients.push(a / b);
        (a, b) = (b, a % b);
    }
    (a == 1).then_some(quotients)
}

/// Denominators of the convergents of `step` / `size`: the distances in time after which
/// a lattice comes close to where it was.
pub(crate) fn return_times(size: u32, step: u32) -> Vec<i128> {
    let mut times = vec![0, 1];
    for quotient in quotients(size, step).expect("a step that is coprime to the size") {
        let [.., last_but_one, last] = times[..] else {
            unreachable!("there are two from the beginning");
        };
        times.push(i128::from(quotient) * last + last_but_one);
    }
    times
}

/// How many of the first `count` points of the lattice `step * i + offset` mod `size`
/// are below `end`.
pub(crate) fn points_below(size: i128, step: i128, offset: i128, end: i128, count: i128) -> i128 {
    // A point is below `end` where the quotient by `size` steps up when `end` is added.
    sum_of_floors(count, size, step, offset + size)
        - sum_of_floors(count, size, step, offset + size - end)
}

/// Sum of ⌊(a * i + b) / m⌋ over 0 <= i < n, by Euclid's algorithm.
fn sum_of_floors(n: i128, m: i128, a: i128, b: i128) -> i128 {
    if n == 0 {
        return 0;
    }
    let whole = (n - 1) * n / 2 * (a / m) + n * (b / m);
    let (a, b) = (a % m, b % m);
    let top = a * n + b;
    if top < m {
        return whole;
    }
    whole + sum_of_floors(top / m, a, m, top % m)
}

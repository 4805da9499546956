//! Medians and spreads, and ratios taken round by round.

/// Median, smallest and largest of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    /// Of values that are not empty.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        Some(Self { median, least, most })
    }
}

/// A value of each round, by the round's number.
pub type Rounds = Vec<(u32, f64)>;

/// The spread of a value over its rounds.
#[must_use]
pub fn spread(rounds: &Rounds) -> Option<Spread> {
    Spread::of(rounds.iter().map(|(_, value)| *value))
}

/// `combine` of both values in each round that both have.
#[must_use]
pub fn by_round(a: &Rounds, b: &Rounds, combine: impl Fn(f64, f64) -> Option<f64>) -> Rounds {
    let other = |round| b.iter().find(|(other, _)| *other == round).map(|(_, value)| *value);
    a.iter().filter_map(|(round, value)| Some((*round, combine(*value, other(*round)?)?))).collect()
}

/// `a` less `b`, round by round.
#[must_use]
pub fn difference(a: &Rounds, b: &Rounds) -> Rounds {
    by_round(a, b, |a, b| Some(a - b))
}

/// `a` by `b`, round by round; rounds in which `b` is not positive say nothing.
#[must_use]
pub fn ratio(a: &Rounds, b: &Rounds) -> Rounds {
    by_round(a, b, |a, b| (b > 0.0).then_some(a / b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads() {
        assert_eq!(Spread::of([]), None);
        let odd = Spread::of([3.0, 1.0, 2.0]);
        assert_eq!(odd, Some(Spread { median: 2.0, least: 1.0, most: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]).map(|s| s.median), Some(2.5));
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let a = vec![(0, 2.0), (1, 9.0), (3, 5.0)];
        let b = vec![(0, 1.0), (1, 3.0), (2, 7.0), (3, 0.0)];
        assert_eq!(ratio(&a, &b), [(0, 2.0), (1, 3.0)]);
        assert_eq!(difference(&a, &b), [(0, 1.0), (1, 6.0), (3, 5.0)]);
    }
}

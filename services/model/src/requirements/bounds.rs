//! Ranges of whole numbers.

/// A range of whole numbers, both ends included; an end that is absent does not bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// The least.
    pub min: Option<u32>,
    /// The most.
    pub max: Option<u32>,
}

impl Bounds {
    /// No bound at all.
    pub const ANY: Self = Self {
        min: None,
        max: None,
    };

    /// This many, no more and no less.
    pub const fn exactly(value: u32) -> Self {
        Self {
            min: Some(value),
            max: Some(value),
        }
    }

    /// This many or more.
    pub const fn at_least(value: u32) -> Self {
        Self {
            min: Some(value),
            max: None,
        }
    }

    /// This many or fewer.
    pub const fn at_most(value: u32) -> Self {
        Self {
            min: None,
            max: Some(value),
        }
    }

    /// From `min` to `max`.
    pub const fn between(min: u32, max: u32) -> Self {
        Self {
            min: Some(min),
            max: Some(max),
        }
    }

    /// Whether neither end bounds.
    pub fn is_any(self) -> bool {
        self == Self::ANY
    }

    /// Whether a number lies within.
    pub fn contains(self, value: u64) -> bool {
        self.min.is_none_or(|min| value >= u64::from(min))
            && self.max.is_none_or(|max| value <= u64::from(max))
    }

    /// Whether a number that may not be known lies within: an unknown one only if nothing bounds.
    pub(crate) fn admit(self, value: Option<u64>) -> bool {
        self.is_any() || value.is_some_and(|value| self.contains(value))
    }
}

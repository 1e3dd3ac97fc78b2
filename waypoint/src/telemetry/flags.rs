//! How a request or connection ended, in Envoy's codes (`%RESPONSE_FLAGS%`), which Istio's dashboards know.

use std::fmt;

/// A set of response flags; `-` where nothing is to remark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Flags(u16);

/// Bits and their codes, in the order in which Envoy writes them.
const CODES: [(Flags, &str); 14] = [
    (Flags::UH, "UH"),
    (Flags::UT, "UT"),
    (Flags::UR, "UR"),
    (Flags::UF, "UF"),
    (Flags::UC, "UC"),
    (Flags::UO, "UO"),
    (Flags::NR, "NR"),
    (Flags::DI, "DI"),
    (Flags::FI, "FI"),
    (Flags::DC, "DC"),
    (Flags::URX, "URX"),
    (Flags::DPE, "DPE"),
    (Flags::DT, "DT"),
    (Flags::NC, "NC"),
];

impl Flags {
    /// Nothing to remark.
    pub(crate) const NONE: Self = Self(0);
    /// No endpoint can take it.
    pub(crate) const UH: Self = Self(1);
    /// The endpoint could not be connected to.
    pub(crate) const UF: Self = Self(1 << 1);
    /// A connection pool is full.
    pub(crate) const UO: Self = Self(1 << 2);
    /// There is no route.
    pub(crate) const NR: Self = Self(1 << 3);
    /// The endpoint's connection ended before it had answered.
    pub(crate) const UC: Self = Self(1 << 4);
    /// The endpoint reset the request, or its answer.
    pub(crate) const UR: Self = Self(1 << 5);
    /// The client went away.
    pub(crate) const DC: Self = Self(1 << 6);
    /// A rule names a destination that is not there.
    pub(crate) const NC: Self = Self(1 << 7);
    /// It took longer than it may.
    pub(crate) const UT: Self = Self(1 << 8);
    /// It was tried as often as it may.
    pub(crate) const URX: Self = Self(1 << 9);
    /// It was answered by an injected fault.
    pub(crate) const FI: Self = Self(1 << 10);
    /// It was delayed by an injected fault.
    pub(crate) const DI: Self = Self(1 << 11);
    /// What the client sent breaks the protocol.
    pub(crate) const DPE: Self = Self(1 << 12);
    /// The connection has lasted as long as it may.
    pub(crate) const DT: Self = Self(1 << 13);

    /// All of both.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The first of its codes: all there is where nothing sets two, as with connections that are carried as bytes.
    pub(crate) fn first(self) -> &'static str {
        CODES.iter().find(|(flag, _)| self.has(*flag)).map_or("-", |(_, code)| code)
    }

    /// Whether it has one of these.
    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return f.write_str("-");
        }
        let set = CODES.iter().filter(|(flag, _)| self.has(*flag));
        for (index, (_, code)) in set.enumerate() {
            write!(f, "{}{code}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Flags;

    #[test]
    fn codes_stand_in_envoy_s_order() {
        for (flags, expected) in [
            (Flags::NONE, "-"),
            (Flags::UF, "UF"),
            (Flags::URX.and(Flags::UF), "UF,URX"),
            (Flags::FI.and(Flags::DI), "DI,FI"),
            (Flags::DC.and(Flags::NONE), "DC"),
        ] {
            assert_eq!(flags.to_string(), expected);
        }
    }
}

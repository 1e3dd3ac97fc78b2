//! How often limits were hit that every proxy has: those of tunnels and accounts ([`hbone::limits`]), and what it keeps of
//! series, log lines and patience. `docs/limits.md` lists them.

use std::fmt;

use daemon::log::Log;
use hbone::limits::Limits;
use prometheus_client::encoding::DescriptorEncoder;
use xds::state::State;

/// `lateen_limit_hits_total`, for every limit there is: those that every proxy has, with how many sets of labels were one too
/// many, and this one's `own`.
///
/// # Errors
/// Those of the encoder.
pub fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    limits: &Limits,
    (log, state): (&Log, &State),
    series: u64,
    own: impl Iterator<Item = (&'static str, u64)>,
) -> Result<(), fmt::Error> {
    let kept = [
        ("metric_series", series),
        ("log_buffer", log.dropped()),
        ("state_patience", state.waited_in_vain()),
    ];
    daemon::limits::encode(encoder, limits.hits.all().chain(kept).chain(own))
}

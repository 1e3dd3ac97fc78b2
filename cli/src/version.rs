//! placeholder
pub(crate) fn run(_: Option<&str>, _: &crate::args::VersionArgs) -> crate::Outcome {
    Ok(std::process::ExitCode::SUCCESS)
}

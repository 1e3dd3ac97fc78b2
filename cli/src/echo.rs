//! placeholder
pub(crate) fn run(_: &crate::args::EchoArgs) -> crate::Outcome {
    Ok(std::process::ExitCode::SUCCESS)
}

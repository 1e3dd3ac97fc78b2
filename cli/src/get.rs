//! placeholder
pub(crate) fn run(_: Option<&str>, _: Option<&str>, _: &crate::args::GetArgs) -> crate::Outcome {
    Ok(std::process::ExitCode::SUCCESS)
}

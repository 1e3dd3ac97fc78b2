//! Tables of where connections go.

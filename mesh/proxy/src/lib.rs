//! What every process is that carries the mesh's traffic, a node agent's proxy or a waypoint: its way to the controller,
//! and whose certificates count for it and its tunnels.

pub mod controller;

pub mod trust;

pub mod build;

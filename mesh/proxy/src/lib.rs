//! What every process is that carries the mesh's traffic, a node agent's proxy or a waypoint: its way to the controller,
//! whose certificates count for it and its tunnels, and its threads.

pub mod controller;

pub mod trust;

pub mod threads;

pub mod build;

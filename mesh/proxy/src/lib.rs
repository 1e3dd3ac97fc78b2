//! What every process is that carries the mesh's traffic, a node agent's proxy or a waypoint: its way to the controller,
//! whose certificates count for it, how its tunnels begin, its threads and limits, the numbers by
//! which it spreads load, and what an operator asks of it.

pub mod controller;

pub mod trust;

pub mod tunnel;

pub mod threads;

pub mod limits;

pub mod random;

pub mod admin;

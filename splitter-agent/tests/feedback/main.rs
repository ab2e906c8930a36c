//! Feedback to the cluster, at a real API server: Events, statuses and the election of the
//! agent that writes them.

mod election;
mod events;
mod roles;
mod routes;
mod scene;
mod status;

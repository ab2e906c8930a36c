//! What a set of Kubernetes objects comes to: from JSON, as the API server gives it, to
//! the plan and to what is reported about each object. A test cites the cases of
//! `docs/semantics.md` that it proves; `cases` compares the two.

mod cases;
mod conflicts;
mod endpoints;
mod fixtures;
mod gateway;
mod interleavings;
mod istio;
mod istio_delegates;
mod istio_fields;
mod istio_force;
mod istio_fuzz;
mod istio_pods;
mod istio_rules;
mod istio_size;
mod istio_tls;
mod knowledge;
mod locality;
mod many_claims;
mod names;
mod overlap;
mod ports;
mod properties;
mod root_ports;
mod services;
mod slices;
mod unknown_fields;
mod weights;

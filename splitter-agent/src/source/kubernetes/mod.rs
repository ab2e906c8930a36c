//! Objects from the Kubernetes API.

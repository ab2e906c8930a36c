//! Where objects are found at the API server.

use kube::core::ApiResource;

use crate::objects::Resource;

/// The kind of the objects that define optional kinds.
pub(super) const CUSTOM_RESOURCE_DEFINITION: Resource = Resource {
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    group: "apiextensions.k8s.io",
};

/// One version of a kind.
pub(super) fn api_resource(resource: Resource, version: &str) -> ApiResource {
    ApiResource {
        group: resource.group.to_owned(),
        version: version.to_owned(),
        api_version: resource.api_version_of(version),
        kind: resource.kind.to_owned(),
        plural: resource.plural.to_owned(),
    }
}

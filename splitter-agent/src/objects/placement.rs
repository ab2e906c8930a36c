//! Where endpoints are, and whose connections they are meant for.

use super::field::{self, FieldError, Fields};

/// The nodes and hints of the endpoints of one EndpointSlice, each of them once: most
/// endpoints of a slice share them, and there are as many endpoints as pods in a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placements {
    nodes: Box<[Box<str>]>,
    hints: Box<[Hints]>,
}

/// The placement of one endpoint, to be looked up in the [`Placements`] of its slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Placement {
    /// From 1; 0 if the node is not known.
    node: u16,
    /// From 1; 0 if there are no hints.
    hints: u16,
}

/// Which clients an endpoint is meant for (`discovery.k8s.io/v1`, EndpointHints).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Clients of these nodes; empty without such a hint.
    pub nodes: Box<[Box<str>]>,
    /// Clients of these zones; empty without such a hint.
    pub zones: Box<[Box<str>]>,
}

impl Placements {
    /// The node that an endpoint is on, if that is known.
    #[must_use]
    pub fn node(&self, placement: Placement) -> Option<&str> {
        let index = usize::from(placement.node).checked_sub(1)?;
        self.nodes.get(index).map(AsRef::as_ref)
    }

    /// The hints of an endpoint, if it has any.
    #[must_use]
    pub fn hints(&self, placement: Placement) -> Option<&Hints> {
        let index = usize::from(placement.hints).checked_sub(1)?;
        self.hints.get(index)
    }

    /// Whether any endpoint of the slice has hints.
    #[must_use]
    pub fn have_hints(&self) -> bool {
        !self.hints.is_empty()
    }
}

/// The placements of a slice that is being read.
#[derive(Debug, Default)]
pub(super) struct Builder {
    nodes: Vec<Box<str>>,
    hints: Vec<Hints>,
}

impl Builder {
    /// Reads the placement of an endpoint.
    pub(super) fn read(&mut self, endpoint: &Fields) -> Result<Placement, FieldError> {
        let node = field::text(endpoint, "nodeName")?.filter(|node| !node.is_empty());
        let hints = read_hints(endpoint)?;
        Ok(Placement {
            node: node.map_or(0, |node| {
                place(&mut self.nodes, |known| **known == *node, || node.into())
            }),
            hints: hints.map_or(0, |hints| {
                place(&mut self.hints, |known| *known == hints, || hints.clone())
            }),
        })
    }

    pub(super) fn finish(self) -> Placements {
        Placements {
            nodes: self.nodes.into(),
            hints: self.hints.into(),
        }
    }
}

/// The place of a value in a list, from 1; it is added if it is not there. 0 if the list is
/// full, which takes 65,535 different values in one slice: such a placement is not known.
fn place<T>(list: &mut Vec<T>, is_it: impl Fn(&T) -> bool, value: impl FnOnce() -> T) -> u16 {
    // Endpoints that share a value are mostly next to each other.
    let index = match list.iter().rposition(is_it) {
        Some(index) => index,
        None if list.len() < usize::from(u16::MAX) => {
            list.push(value());
            list.len() - 1
        }
        None => return 0,
    };
    u16::try_from(index + 1).unwrap_or(0)
}

/// `None` if there are no hints, which is the same as empty ones.
fn read_hints(endpoint: &Fields) -> Result<Option<Hints>, FieldError> {
    let Some(fields) = field::object(endpoint, "hints")? else {
        return Ok(None);
    };
    let names = |list| {
        field::each(fields, list, |item| {
            let name = field::text(field::as_object(item)?, "name")?;
            Ok(Box::from(name.unwrap_or_default()))
        })
        .map(Vec::into_boxed_slice)
        .map_err(|error| error.below("hints"))
    };
    let hints = Hints {
        nodes: names("forNodes")?,
        zones: names("forZones")?,
    };
    Ok((hints != Hints::default()).then_some(hints))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(builder: &mut Builder, endpoint: &Value) -> Result<Placement, FieldError> {
        builder.read(endpoint.as_object().unwrap())
    }

    #[test]
    fn node_and_hints_are_kept_once_and_found_again() {
        let mut builder = Builder::default();
        let near = json!({"nodeName": "n1", "hints": {"forZones": [{"name": "a"}, {"name": "b"}],
            "forNodes": [{"name": "n1"}]}});
        let first = read(&mut builder, &near).unwrap();
        let other = read(&mut builder, &json!({"nodeName": "n2"})).unwrap();
        let again = read(&mut builder, &near).unwrap();
        let nowhere = read(&mut builder, &json!({"nodeName": "", "hints": null})).unwrap();
        let empty = read(
            &mut builder,
            &json!({"hints": {"forZones": [], "forNodes": null}}),
        );
        assert_eq!(first, again);
        assert_eq!(nowhere, Placement::default());
        assert_eq!(empty, Ok(Placement::default()));
        let placements = builder.finish();
        assert_eq!((placements.nodes.len(), placements.hints.len()), (2, 1));
        assert_eq!(placements.node(first), Some("n1"));
        assert_eq!(placements.node(other), Some("n2"));
        assert_eq!(placements.node(nowhere), None);
        let hints = placements.hints(first).unwrap();
        assert_eq!(*hints.nodes, ["n1".into()]);
        assert_eq!(*hints.zones, ["a".into(), "b".into()]);
        assert_eq!(placements.hints(other), None);
        assert!(placements.have_hints());
    }

    #[test]
    fn what_is_no_placement_names_its_field() {
        for (endpoint, field) in [
            (json!({"nodeName": 7}), "nodeName"),
            (json!({"hints": []}), "hints"),
            (json!({"hints": {"forZones": {}}}), "hints.forZones"),
            (json!({"hints": {"forZones": ["a"]}}), "hints.forZones[0]"),
            (
                json!({"hints": {"forNodes": [{"name": "n1"}, {"name": 1}]}}),
                "hints.forNodes[1].name",
            ),
        ] {
            let error = read(&mut Builder::default(), &endpoint).unwrap_err();
            assert_eq!(error.field, field, "{endpoint}");
        }
    }
}

//! What is kept of many objects, in bytes that were asked of the allocator.

#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::json;
use splitter_agent::compile::{Compiler, PodNews, Settings};
use splitter_agent::objects::decode;

/// The system's allocator, which counts.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is done by the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Relaxed);
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller says.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PODS: usize = 100_000;
const NAMESPACES: usize = 20;

/// Bytes for 100,000 pods, each with these labels beside those of its ReplicaSet.
fn bytes_for_pods(own_label: impl Fn(usize) -> Option<String>) -> usize {
    let mut compiler = Compiler::new(Settings::default());
    let before = HELD.load(Relaxed);
    for namespace in 0..NAMESPACES {
        compiler.follow_pods(&format!("team-{namespace}"), PodNews::ListBegins);
    }
    for number in 0..PODS {
        let set = number / 10;
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("application-{set}-7d9f8c6b5-{number:05}"),
                "namespace": format!("team-{}", set % NAMESPACES),
                "uid": format!("5d6a0c2e-8f3b-4a57-9c1d-{number:012}"),
                "labels": {
                    "app": format!("application-{set}"), "version": "v1",
                    "pod-template-hash": format!("7d9f8c6b{}", set % 100),
                },
            },
        });
        if let Some(label) = own_label(number) {
            pod["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"] = label.into();
        }
        compiler.apply(decode(pod).unwrap().unwrap());
    }
    for namespace in 0..NAMESPACES {
        compiler.follow_pods(&format!("team-{namespace}"), PodNews::Listed);
    }
    compiler.compile();
    let bytes = HELD.load(Relaxed) - before;
    assert!(compiler.plan().frontends.is_empty());
    bytes
}

#[test]
fn a_hundred_thousand_pods_take_at_most_16_mib() {
    const MIB: usize = 1 << 20;
    let bytes = bytes_for_pods(|_| None);
    println!("pods of ReplicaSets: {} KiB", bytes / 1024);
    assert!(bytes <= 16 * MIB, "{bytes} bytes");
    // Each with a label of its own, as those of a StatefulSet.
    let bytes = bytes_for_pods(|number| Some(format!("application-{number}")));
    println!("pods of StatefulSets: {} KiB", bytes / 1024);
    assert!(bytes <= 16 * MIB, "{bytes} bytes");
}

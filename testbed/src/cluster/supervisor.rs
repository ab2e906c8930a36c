//! The process that holds a cluster: everything else in it is a child of this one and dies with it,
//! and this one cleans up when whoever wanted the cluster is gone.

use std::env;
use std::error::Error;
use std::fmt;
use std::fs;
use std::io::{BufReader, ErrorKind, Read as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{MountPropagationFlags, mount_change};

use super::forward::Forwarder;
use super::groups::{self, Groups};
use super::plan::{self, Plan};
use super::readiness::{answers, is_ready};
use super::request::{Answer, News, Request, Target, receive, send};
use super::service::Service;
use super::space::Space;
use super::state::{Claim, Directory, NodeRecord, Record};
use super::tools::Tools;
use super::{Options, address, config, image, mounts};

/// What the owner writes when it wants the cluster to stay after its own end.
pub(super) const DETACH: &[u8] = b"detach\n";

/// Why a cluster was not brought up to the end.
#[derive(Debug)]
struct Unwanted;

impl fmt::Display for Unwanted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the process that wanted the cluster has ended")
    }
}

impl Error for Unwanted {}

/// What a supervisor does until the cluster's end.
pub(super) fn run(owner: UnixStream, directory: &Directory, options: &Options, tools: &Tools) {
    // It keeps neither a directory nor the name of the program that it was forked from. Both are
    // courtesies.
    let _ = env::set_current_dir("/");
    let _ = rustix::thread::set_name(c"cluster");
    let mut supervisor = Supervisor {
        owner: Some(owner),
        directory,
        options,
        tools,
        parts: Parts::default(),
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| supervisor.live()))
        .unwrap_or_else(|_| Err(anyhow!("the supervisor of the cluster panicked")));
    if let Err(error) = outcome {
        supervisor.tell(&News::Failed(format!("{error:#}")));
    }
}

/// A cluster's processes. Fields are dropped in order: the nodes before what they depend on.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) nodes: Vec<NodeParts>,
    services: Vec<Service>,
    forwarder: Option<Forwarder>,
    control_plane: Option<Space>,
}

#[derive(Debug)]
pub(super) struct NodeParts {
    pub(super) name: String,
    services: Vec<Service>,
    pub(super) space: Space,
}

/// A process that holds a cluster.
pub(super) struct Supervisor<'a> {
    owner: Option<UnixStream>,
    pub(super) directory: &'a Directory,
    pub(super) options: &'a Options,
    pub(super) tools: &'a Tools,
    pub(super) parts: Parts,
}

impl Supervisor<'_> {
    fn live(&mut self) -> Result<()> {
        let claim = Claim::take(self.directory)?;
        let outcome = catch_unwind(AssertUnwindSafe(|| self.up().and_then(|()| self.serve())))
            .unwrap_or_else(|_| Err(anyhow!("the supervisor of the cluster panicked")));
        let cleaned_up = self.clean_up(claim);
        match outcome {
            Ok(Some(client)) => {
                let answer: Answer = cleaned_up.map_err(|error| format!("{error:#}"));
                send(&client, &answer)
            }
            Ok(None) => cleaned_up,
            // Whoever gave up knows why; whether anything is left is what matters then.
            Err(error) if error.is::<Unwanted>() => cleaned_up,
            Err(error) => {
                cleaned_up?;
                Err(error)
            }
        }
    }

    fn clean_up(&mut self, claim: Claim) -> Result<()> {
        self.parts = Parts::default();
        // Both, whatever becomes of the first.
        let groups = groups::remove_all(self.directory.name());
        claim.release()?;
        groups
    }

    fn tell(&self, news: &News) {
        if let Some(owner) = &self.owner {
            // One that has gone away needs no news.
            let _ = send(owner, news);
        }
    }

    fn progress(&self, text: &str) {
        self.tell(&News::Progress(text.to_owned()));
    }

    /// Brings everything up, until it can be used.
    fn up(&mut self) -> Result<()> {
        let count = self.options.nodes;
        let mut plan = Plan::new(self.directory, self.options, self.tools)?;
        if let Some(owner) = &self.owner {
            owner.set_nonblocking(true)?;
        }

        self.progress("starting the control plane");
        let control_plane = Space::new(None, &self.directory.logs().join("network.log"), || {
            mount_change(
                "/",
                MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
            )?;
            fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot forward packets")
        })?;
        control_plane.ip(&address::control_plane_network(count))?;
        let forwarder = Forwarder::new(&control_plane)?;
        let mut node_services = Vec::new();
        for number in 1..=count {
            node_services.push(plan.node(number)?);
        }
        let address = forwarder.address();
        self.parts.services = plan.control_plane(&format!("https://{address}"))?;
        self.parts.control_plane = Some(control_plane);
        self.parts.forwarder = Some(forwarder);
        self.start(&["etcd"])?;

        let mut record = Record {
            address,
            programs: self.tools.directories().to_vec(),
            nodes: Vec::new(),
        };
        for (number, services) in (1..=count).zip(node_services) {
            record.nodes.push(self.make_node(number, services)?);
        }
        self.directory.save(&record)?;
        self.wait("etcd", |it| Ok(answers(it.control_plane()?, address::ETCD)))?;
        self.start(&["kube-apiserver"])?;
        if count > 0 {
            self.start_on_nodes("containerd")?;
            let pause = image::of_program(
                config::PAUSE,
                &self.tools.program("pause")?,
                self.directory.path(),
            )?;
            self.wait("containerd", Self::load_everywhere(&pause))?;
        }
        self.wait("kube-apiserver", |it| {
            Ok(it.kubectl(&["get", "--raw", "/readyz"]).is_ok())
        })?;
        if count == 0 {
            return Ok(());
        }

        self.progress("starting the nodes");
        self.start(&["kube-controller-manager", "kube-scheduler", "coredns"])?;
        for program in ["kubelet", "kube-proxy"] {
            self.start_on_nodes(program)?;
        }
        self.wait("kubelet", Self::nodes_are_ready)?;
        self.wait("coredns", |it| {
            is_ready(it.control_plane()?, address::DNS_READY, "/ready")
        })?;
        self.wait("kube-proxy", |it| {
            let is_ready =
                |node| is_ready(node, address::PROXY_READY, "/healthz").is_ok_and(|it| it);
            Ok(it.parts.nodes.iter().all(|node| is_ready(&node.space)))
        })?;
        self.wait("kube-controller-manager", |it| {
            Ok(it.kubectl(&["get", "serviceaccount", "default"]).is_ok())
        })
    }

    pub(super) fn control_plane(&self) -> Result<&Space> {
        self.parts
            .control_plane
            .as_ref()
            .context("no control plane")
    }

    fn make_node(&mut self, number: usize, services: Vec<Service>) -> Result<NodeRecord> {
        let name = Plan::node_name(number);
        let groups = Groups::create(self.directory.name(), &name)?;
        let mut kept = self.tools.directories().to_vec();
        kept.push(self.directory.path().to_owned());
        let host_name = name.clone();
        let log = self.directory.logs().join(&name).join("node.log");
        let space = Space::new(Some(&groups), &log, move || {
            mounts::set_up(&kept)?;
            rustix::system::sethostname(host_name.as_bytes()).context("cannot set the name")?;
            plan::furnish_node(number)
        })?;
        self.control_plane()?
            .ip(&address::connect_node(number, space.holder()))?;
        space.ip(&address::node_network(number, self.options.nodes))?;
        let record = NodeRecord {
            name: name.clone(),
            address: address::of_node(number),
            init: space.holder(),
            groups: groups.members().to_vec(),
        };
        self.parts.nodes.push(NodeParts {
            name,
            services,
            space,
        });
        Ok(record)
    }

    /// Starts programs of the control plane.
    fn start(&mut self, programs: &[&str]) -> Result<()> {
        let Parts {
            services,
            control_plane,
            ..
        } = &mut self.parts;
        let space = control_plane.as_ref().context("no control plane")?;
        programs
            .iter()
            .try_for_each(|program| find(services, program)?.start(space))
    }

    fn start_on_nodes(&mut self, program: &str) -> Result<()> {
        self.parts.nodes.iter_mut().try_for_each(|node| {
            let service = find(&mut node.services, program)?;
            service.start(&node.space)
        })
    }

    pub(super) fn services(&mut self) -> impl Iterator<Item = &mut Service> {
        let nodes = self.parts.nodes.iter_mut();
        let on_nodes = nodes.flat_map(|node| node.services.iter_mut());
        self.parts.services.iter_mut().chain(on_nodes)
    }

    /// Fails when the owner is gone or a program has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        self.check_owner()?;
        self.services().try_for_each(Service::check)
    }

    pub(super) fn check_owner(&mut self) -> Result<()> {
        if self.owner_is_gone() {
            return Err(Unwanted.into());
        }
        Ok(())
    }

    /// Whether the process that wanted the cluster has ended, without leaving it to others.
    fn owner_is_gone(&mut self) -> bool {
        let Some(owner) = &mut self.owner else {
            return false;
        };
        let mut text = [0; DETACH.len()];
        match owner.read(&mut text) {
            Ok(length) if text[..length] == *DETACH => {
                self.owner = None;
                false
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            _ => true,
        }
    }

    /// Takes requests until the end is wanted; returns who wanted it, if it waits for an answer.
    fn serve(&mut self) -> Result<Option<UnixStream>> {
        let listener =
            UnixListener::bind(self.directory.control()).context("cannot listen for requests")?;
        self.tell(&News::Ready);
        loop {
            let mut sources = vec![PollFd::new(&listener, PollFlags::IN)];
            if let Some(owner) = &self.owner {
                sources.push(PollFd::new(owner, PollFlags::IN));
            }
            match poll(&mut sources, None) {
                Err(error) if error != rustix::io::Errno::INTR => return Err(error.into()),
                _ => {}
            }
            let is_asked = !sources[0].revents().is_empty();
            drop(sources);
            if self.owner_is_gone() {
                return Ok(None);
            }
            if is_asked && let Ok((client, _)) = listener.accept() {
                // Whoever connects and then hesitates must not keep others waiting.
                client.set_read_timeout(Some(Duration::from_secs(5)))?;
                let request = receive(&mut BufReader::new(&client)).ok().flatten();
                let answer = match request {
                    Some(Request::Down) => return Ok(Some(client)),
                    Some(Request::Stop(target)) => self.stop_target(&target),
                    Some(Request::Start(target)) => self.start_target(&target),
                    None => continue,
                };
                let answer: Answer = answer.map_err(|error| format!("{error:#}"));
                // It may have gone away meanwhile.
                let _ = send(&client, &answer);
            }
        }
    }

    fn target(&mut self, target: &Target) -> Result<(&mut Service, &Space)> {
        let Parts {
            nodes,
            services,
            control_plane,
            ..
        } = &mut self.parts;
        let (services, space) = match &target.node {
            None => (
                services,
                control_plane.as_ref().context("no control plane")?,
            ),
            Some(name) => {
                let node = nodes.iter_mut().find(|node| node.name == *name);
                let node = node.with_context(|| format!("there is no node {name}"))?;
                (&mut node.services, &node.space)
            }
        };
        Ok((find(services, &target.program)?, space))
    }

    fn stop_target(&mut self, target: &Target) -> Result<()> {
        self.target(target)?.0.stop()
    }

    fn start_target(&mut self, target: &Target) -> Result<()> {
        let (service, space) = self.target(target)?;
        service.start(space)?;
        self.wait_for_restarted(target)
    }
}

fn find<'a>(services: &'a mut [Service], program: &str) -> Result<&'a mut Service> {
    services
        .iter_mut()
        .find(|service| service.name() == program)
        .with_context(|| format!("{program} is no program of the cluster"))
}

//! Keeping the programs on the cgroups that pods are in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::causes::with_causes;
use crate::datapath::{
    Choice, Fallback, Hierarchy, Neighbour, OwnPlace, PinDirectory, PreflightError, Programs,
    cgroup_id, choose, holder_of_pods, is_cgroup, neighbours, on_node, outermost, path_to_root,
};
use crate::report::{AgentState, AttachmentPlace, Places};

/// How often programs of others are asked for, if nothing changes.
const NEIGHBOURS_INTERVAL: Duration = Duration::from_secs(30);

/// Where the programs have to be, and where they are.
#[derive(Debug)]
pub struct Attachment {
    pins: PinDirectory,
    /// The groups that were asked for; none if they are to be found.
    asked: Vec<PathBuf>,
    hierarchy: Option<Hierarchy>,
    own: OwnPlace,
    /// Groups that have our programs, by their paths.
    attached: BTreeSet<PathBuf>,
    has_taken_over: bool,
    /// Whether something of ours may be pinned that has no place any more.
    is_untidy: bool,
    /// When programs of others were last asked for.
    examined: Option<Instant>,
    /// What was last told.
    places: Places,
}

impl Attachment {
    /// Finds out where this process is and where pods may be. `asked` are the groups to use
    /// instead.
    ///
    /// # Errors
    ///
    /// If a group that was asked for is none, or no cgroup but the agent's own can be seen.
    pub fn new(pins: PinDirectory, asked: &[PathBuf]) -> Result<Self, PreflightError> {
        for path in asked {
            if !path.exists() {
                return Err(PreflightError::NoSuchCgroup(path.clone()));
            }
            if !is_cgroup(path) {
                return Err(PreflightError::NotACgroup(path.clone()));
            }
        }
        let hierarchy = match Hierarchy::find() {
            Err(_) if !asked.is_empty() => None,
            result => Some(result?),
        };
        let own = match hierarchy.as_ref().map(Hierarchy::own_place) {
            None => OwnPlace::default(),
            Some(Err(_)) if !asked.is_empty() => OwnPlace::default(),
            Some(result) => result?,
        };
        let disjoint = outermost(asked.iter().map(|path| (path.clone(), true)).collect());
        for path in asked.iter().filter(|path| !disjoint.contains_key(*path)) {
            tracing::warn!(
                cgroup = %path.display(),
                "ignored, since it is below another cgroup that --cgroup names"
            );
        }
        Ok(Self {
            pins,
            asked: disjoint.into_keys().collect(),
            hierarchy,
            own,
            attached: BTreeSet::new(),
            has_taken_over: false,
            is_untidy: true,
            examined: None,
            places: Places::default(),
        })
    }

    /// Looks where pods are, puts the programs there, and takes them off everything else. What
    /// cannot be done is logged once, told to the state, and tried again the next time.
    pub fn keep(&mut self, programs: &mut Programs, state: &AgentState) {
        let choice = self.choose();
        let problems = self.attach(programs, &choice);
        let places = choice
            .groups
            .iter()
            .map(|(cgroup, has_pods)| AttachmentPlace {
                cgroup: cgroup.clone(),
                has_pods: *has_pods,
                problem: problems.get(cgroup).cloned(),
            })
            .collect();
        let mut told = Places {
            in_pod: self.own.in_pod,
            own: self.own_group(),
            places,
            fallback: choice.fallback.map(Fallback::text),
            warnings: self.places.warnings.clone(),
        };
        let has_changed = told != self.places;
        if has_changed
            || self
                .examined
                .is_none_or(|at| at.elapsed() > NEIGHBOURS_INTERVAL)
        {
            self.examined = Some(Instant::now());
            told.warnings = self.warnings(&choice);
        }
        self.log(&told);
        let is_attached = told.places.iter().any(|place| place.problem.is_none());
        if told != self.places {
            // Before the self-test starts, since it asks where the programs are.
            state.set_places(told.clone());
            self.places = told;
        }
        state.set_attached(is_attached);
    }

    /// Whether no program is left on any cgroup that an agent before us attached.
    pub(super) fn has_taken_over(&self) -> bool {
        self.has_taken_over
    }

    /// The groups that hold pods, by paths as they are seen here: also where the programs are on
    /// a group above them.
    pub(super) fn holders_of_pods(&self) -> BTreeSet<PathBuf> {
        let mut holders: BTreeSet<PathBuf> = self.asked.iter().cloned().collect();
        if let Some(hierarchy) = &self.hierarchy {
            let seen = hierarchy.survey(self.own.group.as_deref());
            let found = seen.keys().filter_map(|path| holder_of_pods(path));
            holders.extend(found.map(|path| join(hierarchy.root(), &path)));
        }
        holders
    }

    /// Where the programs should be now, by paths as they are seen here.
    fn choose(&self) -> Choice {
        if !self.asked.is_empty() {
            return Choice {
                groups: self.asked.iter().map(|path| (path.clone(), true)).collect(),
                fallback: None,
            };
        }
        let Some(hierarchy) = &self.hierarchy else {
            return Choice {
                groups: BTreeMap::new(),
                fallback: None,
            };
        };
        let root = hierarchy.root();
        let held = self.attached.iter();
        let held = held
            .filter_map(|path| Some(path.strip_prefix(root).ok()?.to_owned()))
            .collect();
        let seen = hierarchy.survey(self.own.group.as_deref());
        let mut choice = choose(&seen, &self.own, &held);
        let groups = std::mem::take(&mut choice.groups).into_iter();
        choice.groups = groups
            .map(|(path, pods)| (join(root, &path), pods))
            .collect();
        choice
    }

    /// Puts the programs where they should be; gives back why not, by group.
    fn attach(&mut self, programs: &mut Programs, choice: &Choice) -> BTreeMap<PathBuf, String> {
        if !self.has_taken_over {
            match programs.take_over() {
                Ok(_) => self.has_taken_over = true,
                Err(error) => {
                    let problem = with_causes(&error);
                    let groups = choice.groups.keys();
                    return groups.map(|path| (path.clone(), problem.clone())).collect();
                }
            }
        }
        let mut problems = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for cgroup in choice.groups.keys() {
            match self.attach_one(programs, cgroup) {
                Ok(id) => ids.extend(id),
                Err(problem) => {
                    problems.insert(cgroup.clone(), problem);
                }
            }
        }
        // What was attached and should not be any more splits until what should be is.
        let is_left = |path: &PathBuf| !choice.groups.contains_key(path);
        self.is_untidy |= self.attached.iter().any(is_left);
        if problems.is_empty() && self.is_untidy {
            match programs.detach_from_others(&ids) {
                Ok(removed) => {
                    self.is_untidy = false;
                    self.attached.retain(|path| !is_left(path));
                    for link in removed {
                        tracing::info!(
                            link = %link.display(),
                            "detached a program from a cgroup without pods, or of another \
                             version"
                        );
                    }
                }
                Err(error) => {
                    tracing::warn!(error = with_causes(&error), "cannot detach programs");
                }
            }
        }
        problems
    }

    fn attach_one(
        &mut self,
        programs: &mut Programs,
        cgroup: &Path,
    ) -> Result<Option<u64>, String> {
        let was_attached = self.attached.contains(cgroup);
        if !is_cgroup(cgroup) {
            self.is_untidy |= self.attached.remove(cgroup);
            return Err("the cgroup is gone".to_owned());
        }
        let id = cgroup_id(cgroup).ok();
        if was_attached {
            match programs.is_attached(cgroup) {
                Ok(true) => return Ok(id),
                Ok(false) => tracing::warn!(
                    cgroup = %on_node(cgroup).display(),
                    "the programs are no longer on the cgroup; attaching them again"
                ),
                Err(error) => return Err(with_causes(&error)),
            }
        }
        let attached = programs.attach_beside(cgroup).map_err(|error| {
            self.attached.remove(cgroup);
            with_causes(&error)
        })?;
        self.is_untidy = true;
        self.attached.insert(cgroup.to_owned());
        tracing::info!(
            cgroup = %on_node(cgroup).display(),
            programs = attached
                .iter()
                .map(|(name, attached)| format!("{name} ({attached:?})"))
                .collect::<Vec<_>>()
                .join(", "),
            "programs attached; connections are split"
        );
        Ok(id)
    }

    /// What people should know, though connections are split.
    fn warnings(&self, choice: &Choice) -> Vec<String> {
        let mut warnings: Vec<String> = self.left_out();
        let groups: Vec<PathBuf> = choice.groups.keys().cloned().collect();
        let harmful = neighbours(&self.pins, &groups);
        warnings.extend(harmful.iter().filter_map(Neighbour::warning));
        warnings
    }

    /// Groups with pods that `--cgroup` leaves out.
    fn left_out(&self) -> Vec<String> {
        let Some(hierarchy) = self.hierarchy.as_ref().filter(|_| !self.asked.is_empty()) else {
            return Vec::new();
        };
        let asked: BTreeSet<u64> = self
            .asked
            .iter()
            .filter_map(|it| cgroup_id(it).ok())
            .collect();
        let seen = hierarchy.survey(self.own.group.as_deref());
        let choice = choose(&seen, &self.own, &BTreeSet::new());
        let with_pods = choice.groups.iter().filter(|(_, has_pods)| **has_pods);
        with_pods
            .map(|(path, _)| join(hierarchy.root(), path))
            .filter(|group| {
                let mut path = path_to_root(group).filter_map(|it| cgroup_id(&it).ok());
                !path.any(|id| asked.contains(&id))
            })
            .map(|group| {
                format!(
                    "pods are in the cgroup {}, which --cgroup leaves out: their connections are \
                     not split",
                    on_node(&group).display()
                )
            })
            .collect()
    }

    fn own_group(&self) -> Option<PathBuf> {
        let root = self.hierarchy.as_ref()?.root();
        Some(on_node(&join(root, self.own.group.as_ref()?)))
    }

    /// Logs what has changed.
    fn log(&self, told: &Places) {
        let known: BTreeMap<_, _> = self.places.problems().collect();
        for (cgroup, problem) in told.problems() {
            if known.get(cgroup) != Some(&problem) {
                tracing::warn!(
                    cgroup = %on_node(cgroup).display(),
                    "connections from this cgroup are not split: {problem}; trying again"
                );
            }
        }
        if let Some(why) = told
            .fallback
            .filter(|_| told.fallback != self.places.fallback)
        {
            tracing::warn!(
                "the programs are for the root of the cgroup hierarchy, since {why}: connections \
                 of every process on the node are split, after programs of others on the root have \
                 seen them; name the pods' cgroup with --cgroup if there is one"
            );
        }
        let known: BTreeSet<_> = self.places.warnings.iter().collect();
        for warning in told.warnings.iter().filter(|it| !known.contains(it)) {
            tracing::warn!("{warning}");
        }
    }
}

/// As [`Path::join`], without a slash at the end for the root itself.
fn join(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() {
        root.to_owned()
    } else {
        root.join(path)
    }
}

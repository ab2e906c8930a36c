//! Which directories and files the kernel watches for us, and what its events mean.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, Event, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::reading::Cause;
use super::tree;

/// What may make a manifest differ: not each write to it, only that a writer is done.
const CONTENT: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);
/// What may make the list of manifests differ, besides.
const DIRECTORY: WatchFlags = CONTENT
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::EXCL_UNLINK);

/// A name has come.
const ARRIVED: ReadFlags = ReadFlags::CREATE.union(ReadFlags::MOVED_TO);
/// A name has come or gone.
const RENAMED: ReadFlags = ARRIVED
    .union(ReadFlags::DELETE)
    .union(ReadFlags::MOVED_FROM);
/// What is watched is no longer where it was.
const LOST: ReadFlags = ReadFlags::DELETE_SELF
    .union(ReadFlags::MOVE_SELF)
    .union(ReadFlags::UNMOUNT)
    .union(ReadFlags::IGNORED);

/// What events asked for. Paths are relative to the root.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Files to read again, and why.
    pub(super) files: BTreeMap<PathBuf, Cause>,
    /// Whether to list the directory again.
    pub(super) rescan: bool,
    /// Whether events were lost: then anything may have changed.
    pub(super) lost: bool,
}

impl Changes {
    fn file(&mut self, path: PathBuf, flags: ReadFlags) {
        let cause = self.files.entry(path).or_default();
        if flags.intersects(RENAMED) {
            // Whatever was written before was another file.
            cause.written = false;
        }
        cause.written |= flags.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO);
        cause.removed |= flags.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM);
    }
}

/// What a watch descriptor stands for.
#[derive(Debug)]
enum Watched {
    /// A directory.
    Directory(PathBuf),
    /// The file that these links lead to.
    Target(BTreeSet<PathBuf>),
    /// The link that the root is.
    RootLink,
}

/// The watches on a directory and everything below it.
pub(super) struct Watches {
    root: PathBuf,
    descriptor: OwnedFd,
    watched: HashMap<i32, Watched>,
    has_links: bool,
}

impl Watches {
    /// No watch yet.
    pub(super) fn new(root: &Path) -> io::Result<Self> {
        Ok(Self {
            root: root.to_owned(),
            descriptor: inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?,
            watched: HashMap::new(),
            has_links: false,
        })
    }

    /// Lists the tree, and watches all of it from just before it was listed. Says also
    /// why some of it could not be watched.
    pub(super) fn list(&mut self) -> (tree::Listing, Option<io::Error>) {
        let mut renewal = Renewal {
            descriptor: self.descriptor.as_fd(),
            root: &self.root,
            watched: HashMap::new(),
            failure: None,
        };
        renewal.root_link();
        let listing = tree::list(&self.root, |directory| renewal.directory(directory));
        for (path, _) in listing.files.iter().filter(|(_, file)| file.is_link) {
            renewal.target(path);
        }
        let Renewal {
            watched, failure, ..
        } = renewal;
        for descriptor in self.watched.keys() {
            if !watched.contains_key(descriptor) {
                // Fails if what was watched is gone, and the watch with it.
                let _ = inotify::remove_watch(&self.descriptor, *descriptor);
            }
        }
        self.watched = watched;
        self.has_links = listing.has_links;
        (listing, failure)
    }

    /// Takes every event that is queued.
    pub(super) fn drain(&mut self) -> io::Result<Changes> {
        let mut changes = Changes::default();
        let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
        let mut events = Reader::new(&self.descriptor, &mut buffer);
        loop {
            match events.next() {
                Ok(event) => note(
                    &mut self.watched,
                    &self.root,
                    self.has_links,
                    &event,
                    &mut changes,
                ),
                Err(Errno::AGAIN) => return Ok(changes),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Watches {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// The watches that a new listing needs. One that is there already keeps its descriptor.
struct Renewal<'watches> {
    descriptor: BorrowedFd<'watches>,
    root: &'watches Path,
    watched: HashMap<i32, Watched>,
    failure: Option<io::Error>,
}

impl Renewal<'_> {
    /// Where the root is a link, notices that it leads elsewhere.
    fn root_link(&mut self) {
        if self.root.is_symlink() {
            let flags = CONTENT | WatchFlags::DONT_FOLLOW;
            if let Some(descriptor) = self.add(Path::new(""), flags) {
                self.watched.insert(descriptor, Watched::RootLink);
            }
        }
    }

    fn directory(&mut self, directory: &Path) {
        if let Some(descriptor) = self.add(directory, DIRECTORY) {
            // Of several paths to one directory, the first is the one that is listed.
            self.watched
                .entry(descriptor)
                .or_insert_with(|| Watched::Directory(directory.to_owned()));
        }
    }

    fn target(&mut self, link: &Path) {
        let Some(descriptor) = self.add(link, CONTENT) else {
            return;
        };
        let watched = self
            .watched
            .entry(descriptor)
            .or_insert_with(|| Watched::Target(BTreeSet::new()));
        if let Watched::Target(links) = watched {
            links.insert(link.to_owned());
        }
    }

    fn add(&mut self, path: &Path, flags: WatchFlags) -> Option<i32> {
        // Joined with an empty path it would end in a slash, and a link be followed.
        let path = if path.as_os_str().is_empty() {
            Cow::Borrowed(self.root)
        } else {
            Cow::Owned(self.root.join(path))
        };
        match inotify::add_watch(self.descriptor, &*path, flags) {
            Ok(descriptor) => Some(descriptor),
            // It is not there (any more), or cannot be read either: the listing tells.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) => None,
            Err(error) => {
                self.failure = Some(error.into());
                None
            }
        }
    }
}

/// What an event asks for.
fn note(
    watched: &mut HashMap<i32, Watched>,
    root: &Path,
    has_links: bool,
    event: &Event<'_>,
    changes: &mut Changes,
) {
    let flags = event.events();
    if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
        changes.lost = true;
        return;
    }
    match watched.get(&event.wd()) {
        None => return, // a watch that was given up
        Some(Watched::RootLink) => changes.rescan = true,
        Some(Watched::Target(links)) => {
            for link in links {
                changes.file(link.clone(), flags);
            }
            // Other attributes: another file may have taken its place.
            changes.rescan |= flags.intersects(LOST | ReadFlags::ATTRIB);
        }
        Some(Watched::Directory(directory)) => {
            let name = event
                .file_name()
                .map(|name| OsStr::from_bytes(name.to_bytes()));
            match name.filter(|name| !name.is_empty()) {
                None => changes.rescan |= flags.intersects(LOST | ReadFlags::ATTRIB),
                Some(_) if flags.contains(ReadFlags::ISDIR) => changes.rescan = true,
                Some(name) => {
                    let path = directory.join(name);
                    // Where there are links, any name may be part of what one leads to.
                    changes.rescan |= flags.intersects(RENAMED) && has_links
                        || flags.intersects(ARRIVED) && is_link(&root.join(&path));
                    if tree::is_manifest(name) {
                        changes.file(path, flags);
                    }
                }
            }
        }
    }
    if flags.contains(ReadFlags::IGNORED) {
        watched.remove(&event.wd());
    }
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
}

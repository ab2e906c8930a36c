//! The listener that self-test connections must end at.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::PATIENCE;

/// A thread that answers every connection with one word.
#[derive(Debug)]
pub(super) struct Listener {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A word that no other process has.
pub(super) fn token() -> String {
    // The keys of the standard library's hash maps come from the kernel's random numbers.
    let random = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random())
}

impl Listener {
    /// Listens on a free port of the loopback interface.
    pub(super) fn start(token: String) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = std::thread::Builder::new()
            .name("self-test".to_owned())
            .spawn(move || serve(&listener, &token, &over))?;
        Ok(Self {
            address,
            is_over,
            thread: Some(thread),
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // Wakes the thread, which then sees that it is over. If no connection can be made, the
        // thread ends with the process.
        if TcpStream::connect_timeout(&self.address, PATIENCE).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, token: &str, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Acquire) {
        match listener.accept() {
            // The word fits every socket's buffer, so this never waits for a client. A client
            // that is gone already has seen what it wanted.
            Ok((mut client, _)) => {
                let _ = client.write_all(token.as_bytes());
            }
            // Out of descriptors, most likely.
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn every_connection_is_answered_with_the_word_until_the_listener_is_dropped() {
        let listener = Listener::start("word".to_owned()).unwrap();
        let address = listener.address();
        for _ in 0..3 {
            let mut answer = String::new();
            let mut client = TcpStream::connect(address).unwrap();
            client.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "word");
        }
        drop(listener);
        assert!(TcpStream::connect(address).is_err());
        assert_ne!(token(), token());
    }
}

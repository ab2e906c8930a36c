//! The connection to the API server.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// A server that does not answer a connection for so long is taken to be away.
const CONNECT: Duration = Duration::from_secs(5);
/// Requests are a few lines.
const WRITE: Duration = Duration::from_secs(10);
/// A connection on which nothing is read for so long is taken to be dead. A watch is
/// never silent for that long: the server sends a bookmark every minute.
const READ: Duration = Duration::from_secs(150);

/// How the agent introduces itself.
const AGENT: &str = concat!("splitter-agent/", env!("CARGO_PKG_VERSION"));

/// The environment variable that names a kubeconfig.
const KUBECONFIG: &str = "KUBECONFIG";

/// Why there is no client for the API server.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {} cannot be used: {source}: correct it, or name another one", path.display())]
    Kubeconfig {
        /// Its path.
        path: PathBuf,
        /// The cause.
        source: KubeconfigError,
    },
    /// There is no kubeconfig, and this is not a pod with a service account.
    #[error(
        "this is not a pod with a service account ({source}): name a kubeconfig with --kubeconfig or \
         KUBECONFIG, or a directory of manifests with --manifests"
    )]
    NotInCluster {
        /// The cause.
        source: InClusterError,
    },
    /// What the configuration says cannot be done.
    #[error("no connection can be made as configured: {source}: correct the kubeconfig")]
    Unusable {
        /// The cause.
        source: kube::Error,
    },
}

/// A client for the API server: of the given kubeconfig, or that of the environment
/// variable `KUBECONFIG`, or of the pod's service account. Where that one finds the server
/// is said by `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT`, which may be set to
/// an address that works without kube-proxy.
///
/// The server is reached directly: `HTTPS_PROXY` is not followed, and a kubeconfig that itself
/// names a proxy is refused. Nothing is sent yet. Failed requests are not repeated: the caller
/// knows best how long to wait.
///
/// # Errors
///
/// When there is no usable configuration.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ClientError> {
    let from_environment = || env::var_os(KUBECONFIG).filter(|path| !path.is_empty());
    let mut config = match kubeconfig {
        Some(path) => read(path, Kubeconfig::read_from(path)).await?,
        None => match from_environment() {
            // It may be a list of files.
            Some(paths) => {
                let merged = Kubeconfig::from_env().map(Option::unwrap_or_default);
                read(Path::new(&paths), merged).await?
            }
            None => Config::incluster().map_err(|source| ClientError::NotInCluster { source })?,
        },
    };
    config.connect_timeout = Some(CONNECT);
    config.write_timeout = Some(WRITE);
    config.read_timeout = Some(READ);
    config.reset_reader_on_write = true;
    config.default_retry = false;
    config
        .headers
        .push((USER_AGENT, HeaderValue::from_static(AGENT)));
    Client::try_from(config).map_err(|source| ClientError::Unusable { source })
}

async fn read(
    path: &Path,
    kubeconfig: Result<Kubeconfig, KubeconfigError>,
) -> Result<Config, ClientError> {
    let failed = |source| ClientError::Kubeconfig {
        path: path.to_owned(),
        source,
    };
    let kubeconfig = kubeconfig.map_err(failed)?;
    let names_proxy = kubeconfig.clusters.iter().any(|cluster| {
        let cluster = cluster.cluster.as_ref();
        cluster.is_some_and(|cluster| cluster.proxy_url.is_some())
    });
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(failed)?;
    if !names_proxy {
        // Then it is from the environment of the agent's parent process, where it is not meant for
        // the API server, and an agent cannot use one.
        config.proxy_url = None;
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn failure(kubeconfig: &Path) -> String {
        match client(Some(kubeconfig)).await {
            Ok(_) => panic!("{} gives a client", kubeconfig.display()),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn errors_name_the_file_and_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        let message = failure(&missing).await;
        assert!(
            message.contains(&missing.display().to_string()),
            "{message}"
        );
        assert!(
            message.ends_with("correct it, or name another one"),
            "{message}"
        );
        for content in ["", "garbage", "{}", "kind: Config\ncurrent-context: none\n"] {
            let path = directory.path().join("config");
            std::fs::write(&path, content).unwrap();
            let message = failure(&path).await;
            assert!(message.starts_with("kubeconfig "), "{content}: {message}");
        }
    }

    #[tokio::test]
    async fn a_kubeconfig_gives_a_client_without_asking_the_server() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        let content = "{apiVersion: v1, kind: Config, current-context: c, \
                       clusters: [{name: k, cluster: {server: 'https://127.0.0.1:1'}}], \
                       contexts: [{name: c, context: {cluster: k, user: u}}], \
                       users: [{name: u, user: {token: t}}]}";
        std::fs::write(&path, content).unwrap();
        assert!(client(Some(&path)).await.is_ok());
    }
}

//! What people and tools write into TrafficSplits, as they write it.

/// A TrafficSplit of the Service `web`.
#[derive(Clone, Debug)]
pub(super) struct Case {
    name: &'static str,
    /// Its spec, as JSON.
    pub(super) text: String,
    /// Fields beside its spec, as JSON; each begins with a comma.
    beside: &'static str,
    /// Whether the agent takes it and the policy does not.
    pub(super) is_stricter_at_the_door: bool,
}

impl Case {
    pub(super) fn spec(spec: &str) -> Self {
        Self {
            name: "it",
            text: spec.to_owned(),
            beside: "",
            is_stricter_at_the_door: false,
        }
    }

    /// With a weight beside one of 10.
    pub(super) fn weight(weight: &str) -> Self {
        Self::spec(&format!(
            r#"{{"service": "web", "backends": [{{"service": "web-v1", "weight": {weight}}}, {{"service": "web-v2", "weight": 10}}]}}"#
        ))
    }

    pub(super) fn good() -> Self {
        Self::weight("90")
    }

    pub(super) fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    pub(super) fn object(&self, version: &str) -> String {
        let Self {
            name, text, beside, ..
        } = self;
        let spec = match text.as_str() {
            "" => String::new(),
            text => format!(r#", "spec": {text}"#),
        };
        format!(
            r#"{{"apiVersion": "split.smi-spec.io/{version}", "kind": "TrafficSplit", "metadata": {{"name": "{name}", "namespace": "default"}}{spec}{beside}}}"#
        )
    }
}

/// Weights of every form.
pub(super) fn weights() -> Vec<Case> {
    let forms = [
        // Numbers.
        "0",
        "1",
        "90",
        "1000000",
        "9007199254740993",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "90.0",
        "0.0",
        "-0.0",
        "1e2",
        "1e15",
        "1e17",
        "1e300",
        "9007199254740991.0",
        "9007199254740994.0",
        "0.5",
        "99.5",
        "-1",
        "-5",
        "-0.5",
        "-1e2",
        // Whole numbers as text.
        r#""0""#,
        r#""90""#,
        r#""007""#,
        r#""999999999999999999""#,
        r#""1000000000000000000000""#,
        r#""00000000000000000000000000000001""#,
        // Quantities.
        r#""900m""#,
        r#""1500m""#,
        r#""0.5""#,
        r#"".5""#,
        r#""5.""#,
        r#""+90""#,
        r#""1e2""#,
        r#""1E2""#,
        r#""1.5e3""#,
        r#""25e-1""#,
        r#""1e12""#,
        r#""10k""#,
        r#""1Ki""#,
        r#""1M""#,
        r#""2Gi""#,
        r#""3T""#,
        r#""4Pi""#,
        r#""1E""#,
        r#""9E""#,
        r#""7Ei""#,
        r#""1n""#,
        r#""1u""#,
        r#""100n""#,
        r#""0.000000001""#,
        // Quantities that are none, or beyond what one can be.
        r#""10E""#,
        r#""8Ei""#,
        r#""1e300""#,
        r#""1e99999999999999999999""#,
        r#""0.1n""#,
        r#""1e-10""#,
        r#""0.0000000001""#,
        r#""-1""#,
        r#""-500m""#,
        r#""""#,
        r#"" 1""#,
        r#""1 ""#,
        r#""ten""#,
        r#"".""#,
        r#""1.2.3""#,
        r#""1e""#,
        r#""1e+""#,
        r#""1 k""#,
        r#""50%""#,
        r#""0x10""#,
        r#""1K""#,
        r#""NaN""#,
        r#""most\nof them""#,
        r#""\u0661""#,
        // Other things.
        "null",
        "true",
        "[]",
        "[1]",
        "{}",
    ];
    let mut cases: Vec<Case> = forms.into_iter().map(Case::weight).collect();
    cases.push(Case::spec(
        r#"{"service": "web", "backends": [{"service": "web-v1"}, {"service": "web-v2", "weight": 1}]}"#,
    ));
    // Very far apart, and each of them fine.
    cases.push(Case::spec(
        r#"{"service": "web", "backends": [{"service": "web-v1", "weight": "1n"}, {"service": "web-v2", "weight": "9E"}]}"#,
    ));
    // The agent reads more ways to write a number than anybody uses.
    for odd in [
        "\"0.5Ki\"",
        "\"1.5m\"",
        "\"-0\"",
        "\"1000000000000000000000e-6\"",
    ] {
        cases.push(Case {
            is_stricter_at_the_door: true,
            ..Case::weight(odd)
        });
    }
    cases
}

/// Specs of every form.
pub(super) fn specs() -> Vec<Case> {
    const BACKENDS: &str = r#"[{"service": "web-v1", "weight": 1}]"#;
    let root =
        |root: &str| Case::spec(&format!(r#"{{"service": {root}, "backends": {BACKENDS}}}"#));
    let backends =
        |backends: &str| Case::spec(&format!(r#"{{"service": "web", "backends": {backends}}}"#));
    let with = |field: &str| {
        Case::spec(&format!(
            r#"{{"service": "web", "backends": {BACKENDS}, {field}}}"#
        ))
    };
    let many = |count: usize| {
        let many = (0..count).map(|index| format!(r#"{{"service": "leaf-{index}", "weight": 1}}"#));
        format!("[{}]", many.collect::<Vec<_>>().join(", "))
    };
    let long = |length: usize| format!("\"{}\"", "a".repeat(length));
    let mut cases: Vec<Case> = ["", "null", "[]", "7", "\"garbage\"", "{}"]
        .into_iter()
        .map(Case::spec)
        .collect();
    cases.push(Case::spec(&format!(r#"{{"backends": {BACKENDS}}}"#)));
    let roots = [
        "7",
        "null",
        "{}",
        "[]",
        "true",
        r#""""#,
        r#""web""#,
        r#""WEB""#,
        r#""web.""#,
        r#""web.default""#,
        r#""web.default.""#,
        r#""web.default.svc""#,
        r#""web.default.svc.cluster""#,
        r#""web.default.svc.cluster.local""#,
        r#""Web.Default.SVC.Cluster.Local.:80""#,
        r#""web:80""#,
        r#""web:0080""#,
        r#""web:65535""#,
        r#""web.elsewhere""#,
        r#""web.elsewhere.svc.cluster.local""#,
        r#""web.default.pod""#,
        r#""www.example.org""#,
        r#""a.web.default.svc.cluster.local""#,
        r#""http://web/""#,
        r#""web:""#,
        r#""web:0""#,
        r#""web:65536""#,
        r#""web:99999""#,
        r#""web:+80""#,
        r#""web:80:80""#,
        r#"":80""#,
        r#"".""#,
        r#""..""#,
        r#""web..""#,
        r#"".web""#,
        r#""web..default""#,
        r#"" web""#,
        r#""web ""#,
        r#""we_b""#,
        r#""-web""#,
        r#""web-""#,
        r#""w\neb""#,
        r#""w\u00e9b""#,
        r#""web\u0000""#,
        r#""kubernetes""#,
        r#""kubernetes.default:443""#,
        r#""KUBERNETES.default.svc""#,
    ];
    cases.extend(roots.into_iter().map(root));
    cases.extend([63, 64, 300].map(|length| root(&long(length))));
    for matches in [
        "[]",
        r#"[{"kind": "HTTPRouteGroup", "name": "beta"}]"#,
        r#"[{"kind": "Pod", "name": "beta"}]"#,
        r#""everybody""#,
        "{}",
    ] {
        cases.push(with(&format!(r#""matches": {matches}"#)));
    }
    for odd in [
        "null",
        "[]",
        "{}",
        "7",
        r#""web-v1""#,
        "[null]",
        r#"["web-v1"]"#,
        "[7]",
        "[[]]",
        "[{}]",
        r#"[{"weight": 1}]"#,
        r#"[{"service": "", "weight": 1}]"#,
        r#"[{"service": 7, "weight": 1}]"#,
        r#"[{"service": null, "weight": -1}, "x"]"#,
        r#"[{"service": "web-v1", "weight": 0}]"#,
        r#"[{"service": "web-v1", "weight": 1}, {"service": "web-v1", "weight": 1}]"#,
        r#"[{"service": "Not a name!", "weight": 1}]"#,
        r#"[{"service": "web-v1.elsewhere", "weight": 1}]"#,
    ] {
        cases.push(backends(odd));
    }
    cases.extend([64, 65].map(|count| backends(&many(count))));
    // Fields that no TrafficSplit has.
    for field in [
        r#""match": [{"name": "beta"}]"#,
        r#""Source-Labels": {"app": "x"}"#,
        r#""port": 80"#,
        r#""namespace": "elsewhere""#,
        r#""namespace": "default""#,
        r#""namespace": """#,
        r#""match": []"#,
        r#""headers": {}"#,
        r#""route": null"#,
        r#""when": false"#,
        r#""analysis": {"interval": "1m"}"#,
        r#""matching": "x""#,
        r#""namespaceSelector": {"matchLabels": {"team": "x"}}"#,
        r#""match_labels": {"app": "x"}"#,
        r#""sourceNamespace": "default""#,
        r#""serviceAccount": "x""#,
        r#""Destination-Port": 80"#,
        r#""portName": "http""#,
        r#""principals": []"#,
        r#""portion": 1"#,
        r#""x.example.org/port": 1"#,
    ] {
        cases.push(with(field));
        cases.push(backends(&format!(
            r#"[{{"service": "web-v1", "weight": 1, {field}}}]"#
        )));
    }
    cases.push(backends(
        r#"[{"service": "web-v1", "weight": 1, "matches": [{"kind": "HTTPRouteGroup"}]}]"#,
    ));
    cases
}

/// Good splits with fields beside their spec, which most definitions make the API server drop.
pub(super) fn strays() -> Vec<Case> {
    let fields = [
        r#", "matches": [{"kind": "HTTPRouteGroup", "name": "beta"}]"#,
        r#", "matches": []"#,
        r#", "annotations": {"a": "b"}"#,
        r#", "namespace": "default""#,
        r#", "namespace": "elsewhere""#,
        r#", "podSelector": {"app": "x"}, "analysis": 1"#,
        r#", "status": {"port": 1}"#,
    ];
    let stray = |beside| Case {
        beside,
        ..Case::good()
    };
    fields.into_iter().map(stray).collect()
}

//! Manifests as teams have them in git: Deployments, Services and least-privilege policies, with tests of them.

use std::fmt::Write as _;

/// Workloads of a namespace.
const OF_NAMESPACE: usize = 20;

/// Workloads with their policies.
pub(crate) struct Team {
    pub(crate) manifests: String,
    workloads: usize,
}

fn namespace(workload: usize) -> String {
    format!("team-{:02}", workload / OF_NAMESPACE)
}

fn app(workload: usize) -> String {
    format!("app-{}", workload % OF_NAMESPACE)
}

/// So many workloads and as many policies for their callers; and so many policies more, which deny by default (or, beyond one for each namespace, admit
/// metrics).
pub(crate) fn team(workloads: usize, more: usize) -> Team {
    let mut manifests = String::new();
    let namespaces = workloads.div_ceil(OF_NAMESPACE);
    for number in 0..namespaces {
        put(
            &mut manifests,
            format_args!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: team-{number:02}, labels: {{team: team-{number:02}}}}}"),
        );
    }
    for workload in 0..workloads {
        let (namespace, app) = (namespace(workload), app(workload));
        put(&mut manifests, format_args!(
            "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {app}, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {{app: {app}}}}}
  template:
    metadata: {{labels: {{app: {app}, tier: backend}}}}
    spec: {{containers: [{{name: app, image: registry.example/app, ports: [{{name: http, containerPort: 8080}}, {{name: metrics, containerPort: 9090}}]}}]}}"
        ));
        put(
            &mut manifests,
            format_args!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {app}, namespace: {namespace}}}\nspec: {{selector: {{app: {app}}}, ports: [{{port: 80, targetPort: http}}]}}"
            ),
        );
        // Each is called by the one before it, and by the first of the next namespace.
        let caller = workload.checked_sub(1).filter(|caller| self::namespace(*caller) == namespace).map_or(app.clone(), self::app);
        put(
            &mut manifests,
            format_args!(
                "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {app}, namespace: {namespace}}}
spec:
  podSelector: {{matchLabels: {{app: {app}}}}}
  policyTypes: [Ingress]
  ingress:
    - from: [{{podSelector: {{matchLabels: {{app: {caller}}}}}}}]
      ports: [{{port: http}}]"
            ),
        );
    }
    for number in 0..more {
        let namespace = format!("team-{:02}", number % namespaces);
        if number < namespaces {
            put(
                &mut manifests,
                format_args!(
                    "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: default-deny, namespace: {namespace}}}\nspec: {{podSelector: {{}}, policyTypes: [Ingress]}}"
                ),
            );
        } else {
            let app = format!("app-{}", number % OF_NAMESPACE);
            put(
                &mut manifests,
                format_args!(
                    "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: metrics-{number}, namespace: {namespace}}}
spec:
  podSelector: {{matchLabels: {{app: {app}}}}}
  policyTypes: [Ingress]
  ingress:
    - from: [{{namespaceSelector: {{matchLabels: {{team: monitoring}}}}}}, {{ipBlock: {{cidr: 198.51.{}.0/24}}}}]
      ports: [{{port: metrics}}]",
                    number % 250
                ),
            );
        }
    }
    Team { manifests, workloads }
}

fn put(manifests: &mut String, document: std::fmt::Arguments<'_>) {
    _ = write!(manifests, "---\n{document}\n");
}

impl Team {
    /// So many tests, all of which pass: single connections, calls of Services, ranges of addresses, and namespaces that do not reach each other.
    pub(crate) fn tests(&self, count: usize) -> String {
        let mut text = "apiVersion: netpol-observer.io/v1alpha1\nkind: PolicyTest\nmetadata: {name: bench}\ntests:\n".to_owned();
        for number in 0..count {
            let callee = (number * 7 + 1) % self.workloads;
            let callee = if callee.is_multiple_of(OF_NAMESPACE) { callee + 1 } else { callee };
            let (namespace, called, caller) = (namespace(callee), app(callee), app(callee - 1));
            let other = format!("team-{:02}", (callee / OF_NAMESPACE + 1) % (self.workloads / OF_NAMESPACE));
            _ = match number % 10 {
                0..5 => writeln!(
                    text,
                    "  - {{from: {namespace}/deploy/{caller}, to: {namespace}/deploy/{called}, port: 8080, expect: allow, by: {namespace}/{called}}}"
                ),
                5 => writeln!(text, "  - {{from: {namespace}/deploy/{caller}, to: 'http://{called}.{namespace}/', expect: allow}}"),
                6 => writeln!(text, "  - {{from: {namespace}/deploy/{caller}, to: {namespace}/deploy/{called}, port: 9090, expect: deny}}"),
                7 => writeln!(text, "  - {{from: 203.0.113.0/24, to: {namespace}/deploy/{called}, expect: deny}}"),
                8 => writeln!(text, "  - {{from: '{other}/*', to: '{namespace}/*', expect: deny}}"),
                _ => writeln!(
                    text,
                    "  - {{from: '*/*', to: {namespace}/deploy/{called}, expect: deny, except: [{{from: {namespace}/deploy/{caller}, port: 8080}}]}}"
                ),
            };
        }
        text
    }

    /// The manifests with a second port in so many rules.
    pub(crate) fn with_wider_rules(&self, count: usize) -> String {
        self.manifests.replacen("      ports: [{port: http}]", "      ports: [{port: http}, {port: 8443}]", count)
    }
}

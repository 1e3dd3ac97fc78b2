//! The fields of an AuthorizationPolicy. None is refused, so that only the page and the tests need them: what nobody can tell
//! is judged on the safe side.

use super::{Message, Test, unseen, yes};

const AGENTS: &str = "ctrl/src/translate/authz/tests.rs";
const WAYPOINTS: &str = "ctrl/src/translate/authz/tests/waypoints.rs";
const REQUESTS: &str = "mesh/model/src/authz/request_match/tests.rs";
const VALUES: &str = "mesh/model/src/authz/tests/values.rs";

const SCOPES: &[Test] = &[(AGENTS, "scopes_by_table")];
const TARGETS: &[Test] = &[(WAYPOINTS, "targets_by_table")];
const NAMESPACES: &[Test] =
    &[("mesh/manifest/src/parse/tests/mistakes.rs", "each_mistake_is_found_where_it_is")];
const ACTIONS: &[Test] = &[(AGENTS, "actions_by_table"), (WAYPOINTS, "every_attribute_of_layer_7_is_kept")];
const RULES: &[Test] = &[
    (AGENTS, "rules_keep_their_places_and_say_what_is_not_seen"),
    (VALUES, "what_is_empty_matches_or_not_by_where_it_is"),
];
const CONNECTION: &[Test] =
    &[(AGENTS, "every_attribute_of_layer_4_is_kept"), (VALUES, "each_field_is_compared_with_what_it_names")];
const DOMAINS: &[Test] = &[
    (AGENTS, "trust_domains_are_beginnings_of_identities"),
    (REQUESTS, "what_belongs_to_the_connection_is_seen_at_layer_4_too"),
];
const REQUEST: &[Test] = &[(WAYPOINTS, "every_attribute_of_layer_7_is_kept")];
const METHODS: &[Test] =
    &[(WAYPOINTS, "every_attribute_of_layer_7_is_kept"), (REQUESTS, "methods_differ_by_case")];
const PATHS: &[Test] = &[
    (WAYPOINTS, "every_attribute_of_layer_7_is_kept"),
    (REQUESTS, "paths_are_compared_without_the_query"),
    ("mesh/model/src/authz/path_match/tests.rs", "a_path_is_compared_as_written"),
];
const HOSTS: &[Test] = &[
    (WAYPOINTS, "every_attribute_of_layer_7_is_kept"),
    (REQUESTS, "a_port_that_the_rule_does_not_speak_of_neither_lets_through_nor_past"),
];
const ORIGINS: &[Test] = &[
    (WAYPOINTS, "every_attribute_of_layer_7_is_kept"),
    (REQUESTS, "an_original_address_is_known_where_all_who_name_one_agree"),
];
const CONDITIONS: &[Test] = &[
    (WAYPOINTS, "every_attribute_of_layer_7_is_kept"),
    (REQUESTS, "each_value_of_a_header_stands_for_itself"),
];

/// Nobody checks the tokens of which these fields speak.
const TOKENS: &str = "no token is checked";

/// `spec` of an AuthorizationPolicy.
pub(crate) const AUTHORIZATION_POLICY: Message = Message {
    name: "AuthorizationPolicy",
    fields: &[
        yes("selector", SCOPES).of(&SELECTOR),
        yes("targetRef", TARGETS).of(&TARGET).note("the older form of `targetRefs`"),
        yes("targetRefs", TARGETS).of(&TARGET).note("only waypoints enforce what is for them"),
        yes("action", ACTIONS).note("AUDIT is noted by waypoints only"),
        unseen("provider", "no provider is asked: what a CUSTOM policy matches is refused", REQUEST)
            .of(&PROVIDER),
        yes("rules", RULES).of(&RULE),
    ],
};

const SELECTOR: Message = Message { name: "WorkloadSelector", fields: &[yes("matchLabels", SCOPES)] };

const TARGET: Message = Message {
    name: "PolicyTargetReference",
    fields: &[
        yes("group", TARGETS),
        yes("kind", TARGETS).note("Gateway, Service, ServiceEntry; GatewayClass in the root namespace"),
        yes("name", TARGETS),
        yes("namespace", NAMESPACES).note("only the policy's own"),
    ],
};

const PROVIDER: Message = Message {
    name: "AuthorizationPolicy.ExtensionProvider",
    fields: &[unseen("name", "no provider is asked", REQUEST)],
};

const RULE: Message = Message {
    name: "Rule",
    fields: &[
        yes("from", REQUEST).of(&FROM),
        yes("to", REQUEST).of(&TO),
        yes("when", REQUEST).of(&CONDITION),
    ],
};

const FROM: Message = Message { name: "Rule.From", fields: &[yes("source", REQUEST).of(&SOURCE)] };

const SOURCE: Message = Message {
    name: "Source",
    fields: &[
        yes("principals", CONNECTION),
        yes("notPrincipals", CONNECTION),
        unseen("requestPrincipals", TOKENS, REQUEST),
        unseen("notRequestPrincipals", TOKENS, REQUEST),
        yes("namespaces", CONNECTION),
        yes("notNamespaces", CONNECTION),
        yes("serviceAccounts", CONNECTION).note("`NAMESPACE/NAME`, or a name of the policy's namespace"),
        yes("notServiceAccounts", CONNECTION),
        yes("trustDomains", DOMAINS),
        yes("notTrustDomains", DOMAINS),
        yes("ipBlocks", CONNECTION),
        yes("notIpBlocks", CONNECTION),
        yes("remoteIpBlocks", ORIGINS),
        yes("notRemoteIpBlocks", ORIGINS),
    ],
};

const TO: Message = Message { name: "Rule.To", fields: &[yes("operation", REQUEST).of(&OPERATION)] };

const OPERATION: Message = Message {
    name: "Operation",
    fields: &[
        yes("hosts", HOSTS).note("whatever the case"),
        yes("notHosts", HOSTS),
        yes("ports", CONNECTION),
        yes("notPorts", CONNECTION),
        yes("methods", METHODS),
        yes("notMethods", METHODS),
        yes("paths", PATHS).note("without the query; `{*}` and `{**}` as in Istio"),
        yes("notPaths", PATHS),
    ],
};

const CONDITION: Message = Message {
    name: "Condition",
    fields: &[
        yes("key", CONDITIONS).note("`request.auth.*` and `experimental.*` are as fields that are not seen"),
        yes("values", CONDITIONS),
        yes("notValues", CONDITIONS),
    ],
};

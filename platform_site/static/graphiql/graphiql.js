"use strict";

// The GraphiQL page: asks who is there, keeps their session for this tab, and sends its token along with everything.
(() => {
  const API = "/graphql";
  const STORED_AS = "platform.session";
  const REFRESH_BEFORE_MS = 30_000;

  const PAYLOAD = `{
    ... on Session { accessToken refreshToken expiresAt user { email } }
    ... on OperationInfo { messages { message } }
  }`;
  const LOGIN = `mutation Login($input: LoginInput!) { answer: login(input: $input) ${PAYLOAD} }`;
  const SIGNUP = `mutation Signup($input: SignupInput!) { answer: signup(input: $input) ${PAYLOAD} }`;
  const REFRESH = `mutation Refresh($input: RefreshTokenInput!) { answer: refreshToken(input: $input) ${PAYLOAD} }`;
  const WHO = "query Who { me { email } }";

  const byId = (id) => document.getElementById(id);

  /** What the API answers with instead of what was asked for, in its own words. */
  class Refused extends Error {}

  async function post(query, variables, headers = {}) {
    const response = await fetch(API, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json", ...headers },
      body: JSON.stringify({ query, variables }),
    });
    const answer = await response.json();
    if (response.status === 401) throw new Refused("This token is not valid, or not any more.");
    if (answer.errors) throw new Refused(answer.errors.map((error) => error.message).join(" "));
    return answer.data;
  }

  // ------------------------------------------------------------------------------------------- the session

  let session = JSON.parse(sessionStorage.getItem(STORED_AS));
  let refreshing = null;

  function keep(opened) {
    session = opened;
    if (opened) sessionStorage.setItem(STORED_AS, JSON.stringify(opened));
    else sessionStorage.removeItem(STORED_AS);
  }

  async function open(mutation, input) {
    const { answer } = await post(mutation, { input });
    if (answer.messages) throw new Refused(answer.messages.map((each) => each.message).join(" "));
    const { accessToken, refreshToken, expiresAt, user } = answer;
    keep({ accessToken, refreshToken, expiresAt, email: user.email });
  }

  async function openWithToken(accessToken) {
    const { me } = await post(WHO, {}, { Authorization: `Bearer ${accessToken}` });
    keep({ accessToken, email: me.email });
  }

  /** A refresh token works once: whoever needs a new access token meanwhile waits for the same answer. */
  function refresh() {
    refreshing ??= (async () => {
      try {
        if (!session?.refreshToken) throw new Refused("This token is not valid any more.");
        await open(REFRESH, { refreshToken: session.refreshToken });
      } catch (error) {
        if (error instanceof Refused) showGate("Your session has ended. Please sign in again.");
        throw error;
      } finally {
        refreshing = null;
      }
    })();
    return refreshing;
  }

  async function authorization() {
    const expiring = session?.refreshToken && Date.parse(session.expiresAt) - Date.now() < REFRESH_BEFORE_MS;
    if (expiring) await refresh();
    return `Bearer ${session?.accessToken ?? ""}`;
  }

  async function fetchSignedIn(url, options) {
    const headers = new Headers(options.headers);
    if (headers.has("Authorization")) return fetch(url, options); // somebody typed their own into the headers editor
    headers.set("Authorization", await authorization());
    const response = await fetch(url, { ...options, headers });
    if (response.status !== 401) return response;
    await refresh();
    headers.set("Authorization", `Bearer ${session.accessToken}`);
    return fetch(url, { ...options, headers });
  }

  // ------------------------------------------------------------------------------------------- the explorer

  let root = null;

  async function showExplorer() {
    const place = byId("explorer");
    const examples = await (await fetch(place.dataset.examples)).text();
    const address = new URL(API, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    const wsClient = graphqlWs.createClient({
      url: address.href,
      connectionParams: async () => ({ authorization: await authorization() }), // asked at each connection
    });
    const fetcher = GraphiQL.createFetcher({ url: API, fetch: fetchSignedIn, wsClient, enableIncrementalDelivery: false });

    byId("gate").hidden = true;
    place.hidden = byId("session").hidden = false;
    byId("who").textContent = session.email;
    root = ReactDOM.createRoot(place);
    root.render(
      React.createElement(
        GraphiQL,
        {
          fetcher,
          defaultQuery: examples,
          defaultEditorToolsVisibility: "variables",
          showPersistHeadersSettings: false,
          forcedTheme: "system", // as the frame around it
        },
        React.createElement(GraphiQL.Logo, null, "GraphiQL"),
      ),
    );
  }

  // ------------------------------------------------------------------------------------------- the gate

  function refuse(message) {
    byId("refusal").textContent = message;
    byId("refusal").hidden = !message;
  }

  function showGate(message = "") {
    keep(null);
    root?.unmount();
    root = null;
    byId("explorer").hidden = byId("session").hidden = true;
    byId("gate").hidden = false;
    refuse(message);
  }

  function isNewcomer(newcomer) {
    byId("name-field").hidden = !newcomer;
    byId("welcome").textContent = newcomer ? "Create an account" : "Sign in";
    byId("submit").textContent = newcomer ? "Create account" : "Sign in";
    byId("switch").textContent = newcomer ? "I have an account" : "Create an account";
    byId("password").autocomplete = newcomer ? "new-password" : "current-password";
    byId("sign-in").dataset.newcomer = newcomer ? "yes" : "";
    refuse("");
  }

  /** Open a session as `opening` does it, with the form's button held down meanwhile. */
  async function enter(form, opening) {
    const button = form.querySelector("[type=submit]");
    button.disabled = true;
    try {
      await opening();
      form.reset();
      refuse("");
      await showExplorer();
    } catch (error) {
      refuse(error instanceof Refused ? error.message : "The platform did not answer. Is it running?");
    } finally {
      button.disabled = false;
    }
  }

  byId("sign-in").addEventListener("submit", (event) => {
    event.preventDefault();
    const form = event.target;
    const { email, password, name } = Object.fromEntries(new FormData(form));
    const newcomer = Boolean(form.dataset.newcomer);
    enter(form, () => (newcomer ? open(SIGNUP, { email, password, name }) : open(LOGIN, { email, password })));
  });
  byId("use-token").addEventListener("submit", (event) => {
    event.preventDefault();
    const token = new FormData(event.target).get("token").trim().replace(/^bearer\s+/i, "");
    enter(event.target, () => openWithToken(token));
  });
  byId("switch").addEventListener("click", () => isNewcomer(!byId("sign-in").dataset.newcomer));
  byId("sign-out").addEventListener("click", () => showGate());

  if (session) showExplorer();
  else showGate();
})();

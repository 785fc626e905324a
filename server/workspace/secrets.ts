/** What must not be read into a prompt: files that hold keys by their name, and files whose text holds one. */

const secretNames =
  /^\.env(\..*)?$|\.(pem|key|p12|pfx|jks|keystore)$|^id_(rsa|dsa|ecdsa|ed25519)$|^\.(netrc|npmrc|pypirc|htpasswd)$|^credentials(\.json)?$/;
const harmlessNames = /^\.env\.(example|sample|template)$/;

export function isSecretName(name: string): boolean {
  return secretNames.test(name) && !harmlessNames.test(name);
}

/** Only forms that their issuers fixed: nothing that a hash or an identifier could look like. */
const tokens: [what: string, form: RegExp][] = [
  ['a private key', /-----BEGIN [A-Z ]*PRIVATE KEY-----/],
  ['an AWS access key', /(?<![A-Z0-9])(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Z0-9])/],
  ['a GitHub token', /(?<!\w)(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{82})(?!\w)/],
  ['a GitLab token', /(?<!\w)glpat-[\w-]{20}(?![\w-])/],
  ['a Slack token', /(?<!\w)xox[abprs]-\d{8,}-[\w-]{16,}/],
  ['a Stripe key', /(?<!\w)[rs]k_live_[A-Za-z0-9]{24,}/],
  ['a Google API key', /(?<!\w)AIza[\w-]{35}(?![\w-])/],
  ['an npm token', /(?<!\w)npm_[A-Za-z0-9]{36}(?!\w)/],
  ['an API key of a model provider', /(?<!\w)sk-(?:ant|proj)-[\w-]{32,}/],
];

/** What secret a text holds, in words; undefined for none. Examples of documentation say that they are. */
export function secretIn(text: string): string | undefined {
  for (const [what, form] of tokens) {
    const found = form.exec(text);
    if (found && !/EXAMPLE|XXXX|xxxx|0000000000/.test(found[0])) return what;
  }
  return undefined;
}

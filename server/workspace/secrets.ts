/** What must not be read into a prompt: files that hold keys by their name, and files whose text holds one. */

/** `_netrc` and `pgpass.conf` are the names of `.netrc` and `.pgpass` on Windows. */
const secretNames =
  /^\.env(\..*)?$|^\.envrc$|\.(env|pem|key|p12|pfx|ppk|jks|keystore)$|^id_(rsa|dsa|ecdsa|ed25519)(_sk)?$|^\.(netrc|npmrc|pypirc|htpasswd|pgpass|git-credentials)$|^_netrc$|^pgpass\.conf$|^credentials(\.json)?$/i;
const harmlessNames = /^\.env\.(example|sample|template)$|^(example|sample|template)\.env$/i;

export function isSecretName(name: string): boolean {
  return secretNames.test(name) && !harmlessNames.test(name);
}

/** Only forms that their issuers fixed: nothing that a hash or an identifier could look like. */
const tokens: [what: string, form: RegExp][] = [
  // With headers or quotes, its first line: code names the marker too. No two parts begin alike, and a header ends before the
  // next marker: each character is looked at a few times, whatever the text.
  [
    'a private key',
    /-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?:\\[nr]|\\(?![nr])|[\s"'`+,;#*>]|[\w-]+: (?:(?!-----)[^\n\\])*(?:\n|\\n)){0,1000}[A-Za-z0-9+/]{40}/g,
  ],
  ['an AWS access key', /(?<![A-Z0-9])(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Z0-9])/g],
  ['a GitHub token', /(?<!\w)(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{82})(?!\w)/g],
  ['a GitLab token', /(?<!\w)glpat-[\w-]{20}(?![\w-])/g],
  ['a Slack token', /(?<!\w)xox[abprs]-\d{8,}-[\w-]{16,}/g],
  ['a Stripe key', /(?<!\w)[rs]k_live_[A-Za-z0-9]{24,}/g],
  ['a Google API key', /(?<!\w)AIza[\w-]{35}(?![\w-])/g],
  ['an npm token', /(?<!\w)npm_[A-Za-z0-9]{36}(?!\w)/g],
  ['a Hugging Face token', /(?<!\w)hf_[A-Za-z0-9]{34}(?!\w)/g],
  ['an API key of a model provider', /(?<!\w)sk-(?:ant|proj)-[\w-]{32,}/g],
];

const examples = /EXAMPLE|XXXX|xxxx|0000000000/;

/** What secret a text holds, in words; undefined for none. Examples of documentation say that they are. */
export function secretIn(text: string): string | undefined {
  for (const [what, form] of tokens)
    for (const [found] of text.matchAll(form)) if (!examples.test(found)) return what;
  return undefined;
}

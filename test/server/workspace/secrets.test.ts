/** Files that hold keys, by their name and by their text. */
import { describe, expect, it } from 'vitest';
import { textFault } from '../../../server/workspace/readText';
import { isSecretName, secretIn } from '../../../server/workspace/secrets';

describe('secrets', () => {
  it('knows files of secrets by their names', () => {
    const secret =
      '.env .ENV.local .envrc prod.env .git-credentials .pgpass .netrc _netrc pgpass.conf .npmrc .pypirc .htpasswd me.ppk a.pem a.key a.p12 a.pfx ' +
      'a.jks a.keystore id_ed25519_sk ID_RSA id_dsa id_ecdsa credentials credentials.json';
    for (const name of secret.split(' ')) expect(isSecretName(name), name).toBe(true);
    const harmless =
      '.env.example .env.sample .env.template example.env sample.env template.env environment.ts id_token.ts keys.ts ' +
      'credentials.ts id_rsa.pub a.pem.ts netrc pgpass.ts';
    for (const name of harmless.split(' ')) expect(isSecretName(name), name).toBe(false);
  });

  it('keeps files with keys and tokens out, and no others', () => {
    // Put together here, so that this file holds none itself.
    const marker = (kind: string, end = '') => `-----BEGIN ${kind}PRIVATE KEY${end}-----`;
    const line = 'MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ';
    for (const [text, what] of [
      [`const key = \`${marker('RSA ')}\n${line}`, 'a private key'],
      [`{"private_key": "${marker('')}\\n${line}\\n`, 'a private key'],
      [`"${marker('EC ')}\\n" +\n  "${line}\\n" +`, 'a private key'],
      [`${marker('RSA ')}\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES\n\n${line}`, 'a private key'],
      [`${marker('PGP ', ' BLOCK')}\nVersion: 2\n\n${line}`, 'a private key'],
      [`AKIAIOSFODNN7EXAMPLE, ${'AKIA'}${'IOSFODNN7QWERTYU'}`, 'an AWS access key'],
      [`${'hf'}_${'aB'.repeat(17)}`, 'a Hugging Face token'],
      [`id: ${'AKIA'}${'IOSFODNN7QWERTYU'}`, 'an AWS access key'],
      [`id: ${'ASIA'}${'IOSFODNN7QWERTYU'}`, 'an AWS access key'],
      [`token = "${'ghp'}_${'a1B2'.repeat(9)}"`, 'a GitHub token'],
      [`token = "${'github'}_pat_${'a1B2_'.repeat(16)}a1"`, 'a GitHub token'],
      [`slack: ${'xoxb'}-123456789012-${'abcDEF'.repeat(4)}`, 'a Slack token'],
      [`${'sk'}_live_${'x9Y8'.repeat(6)}`, 'a Stripe key'],
      [`${'glpat'}-${'a1B2'.repeat(5)}`, 'a GitLab token'],
      [`key: ${'AIza'}${'Sy1_a'.repeat(7)}`, 'a Google API key'],
      [`//npm.example/:_authToken=${'npm'}_${'a1B2'.repeat(9)}`, 'an npm token'],
      [`${'sk'}-ant-api03-${'a1_B'.repeat(8)}`, 'an API key of a model provider'],
      [`${'sk'}-proj-${'a1_B'.repeat(8)}`, 'an API key of a model provider'],
    ])
      expect(textFault('file.js', text!)).toEqual({ reason: 'secret', detail: `it holds ${what}` });
    for (const text of [
      'AKIAIOSFODNN7EXAMPLE of the documentation',
      'sha1 da39a3ee5e6b4b0d3255bfef95601890afd80709',
      'def ghp_token_from_env(): ...',
      'sk-learn-ant',
      `if (text.startsWith('${marker('')}\\n')) return 'PKCS8';`,
      `const markers = ['${marker('RSA ')}', '${marker('')}', '${marker('PGP ', ' BLOCK')}'];`,
      `${marker('')}\n...\n-----END PRIVATE KEY-----`,
      `${marker('')}${' '.repeat(9000)}${'a: b\n'.repeat(3000)}`,
    ])
      expect(textFault('file.js', text)).toBeUndefined();
  });

  it('looks for keys in a time that does not grow faster than the text', () => {
    const marker = '-----BEGIN PRIVATE KEY-----';
    // Steps that double with each header, or that grow with the square of the text: minutes.
    for (const text of [
      marker + '\\na: b\\n'.repeat(100),
      `${marker}a: `.repeat(30_000),
      `${`${marker}a: `.repeat(7)}\n`.repeat(4_000),
      marker + 'a-'.repeat(400_000),
    ])
      expect(secretIn(text)).toBeUndefined();
  });
});

import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/{server,extension/unit,eval,house}/**/*.test.ts'],
    globalSetup: 'test/temporaryFolder.ts',
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // The engine takes every core: two of them at once would measure each other.
    fileParallelism: false,
    // Nothing is kept on disk but where a test says so.
    env: { LONGVIEW_CACHE_DIR: '' },
  },
});

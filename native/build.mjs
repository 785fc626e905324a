// Builds the engine and its addon: `node native/build.mjs` leaves dist/longview.node; `--cuda` adds dist/longview_cuda.so;
// `--test` also runs the engine's tests, `--test-gpu` those that need a GPU, `--test-sanitized` those of everything that reads
// files, damaged ones among them, and of the KV state, with AddressSanitizer (leaks count) and UndefinedBehaviorSanitizer, from a
// build of its own; `--test-arm64` compiles for arm64 and runs the tests of the kernels and of whole models there in emulation.
// `--target linux-x64|linux-arm64|darwin-arm64|win32-x64` compiles for machines other than this one, by zig, and leaves
// build/TARGET/longview.node, with `--cuda` longview_cuda.so too; `--test-windows` runs the same tests under Wine.
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync } from 'node:fs';
import { cpus } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const folder = join(root, 'build', 'native');

function found(command) {
  return spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0;
}

function run(command, args) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit' });
  if (result.status !== 0) process.exit(result.status ?? 1);
}

// NVIDIA's compiler from its Python wheels: no toolkit, no driver.
const wheels = [
  'nvidia-cuda-nvcc==13.0.88',
  'nvidia-nvvm==13.0.88',
  'nvidia-cuda-crt==13.0.88',
  'nvidia-cuda-runtime==13.0.96',
  'nvidia-cuda-cccl==13.0.85',
];

// It compiles for every system: no SDKs, no cross compilers.
const zigWheel = 'ziglang==0.17.1';

const only = ['--quiet', '--no-deps', '--only-binary=:all:', '--disable-pip-version-check'];

function fetchWheels(what, cache, names) {
  console.log(`Fetching ${what} by pip into ${cache}`);
  run('python3', ['-m', 'pip', 'install', ...only, '--target', cache, ...names]);
}

/** zig from pip, in .cache/. */
function findZig() {
  const cache = join(root, '.cache', zigWheel.replace('==', '-'));
  const zig = join(cache, 'ziglang', 'zig');
  if (!existsSync(zig)) fetchWheels("zig's C++ compiler", cache, [zigWheel]);
  return zig;
}

/** nvcc on PATH or under CUDA_HOME, else from pip into .cache/. */
function findNvcc() {
  const folders = (process.env.PATH ?? '').split(delimiter);
  if (process.env.CUDA_HOME) folders.unshift(join(process.env.CUDA_HOME, 'bin'));
  const installed = folders.map((at) => join(at, 'nvcc')).find((path) => existsSync(path));
  if (installed) return installed;
  const cache = join(root, '.cache', 'cuda-13.0');
  const fetched = join(cache, 'nvidia', 'cu13', 'bin', 'nvcc');
  if (!existsSync(fetched)) {
    console.log('There is no nvcc on PATH or under CUDA_HOME.');
    fetchWheels("NVIDIA's compiler", cache, wheels);
  }
  return fetched;
}

function need(command, what, packages) {
  if (found(command)) return;
  console.error(
    `Building Longview's engine needs ${what}: \`${command}\` was not found. On Debian: apt-get install ${packages}.`,
  );
  process.exit(1);
}

/** For a folder that was not configured before, Ninja where it is there. */
function generator(build) {
  return !existsSync(join(build, 'CMakeCache.txt')) && found('ninja') ? ['-G', 'Ninja'] : [];
}

const addon = [
  `-DNODE_ADDON_API=${join(root, 'node_modules/node-addon-api')}`,
  `-DNODE_API_HEADERS=${join(root, 'node_modules/node-api-headers')}`,
];

/** With the code for GPUs or without: for every architecture, unless LONGVIEW_CUDA_ARCHITECTURES names some (`80;90a`). */
function cudaOptions(wanted) {
  if (!wanted) return ['-DLONGVIEW_CUDA=OFF'];
  const { LONGVIEW_CUDA_ARCHITECTURES: some } = process.env;
  const architectures = some ? `-DLONGVIEW_CUDA_ARCHITECTURES=${some}` : '-ULONGVIEW_CUDA_ARCHITECTURES';
  return ['-DLONGVIEW_CUDA=ON', `-DLONGVIEW_NVCC=${findNvcc()}`, architectures];
}

/** Configures build/TARGET, a release for that system; returns the folder. */
function configureFor(target, options) {
  const build = join(root, 'build', target);
  const toolchain = [
    `-DCMAKE_TOOLCHAIN_FILE=${join(root, 'native/zig.cmake')}`,
    `-DLONGVIEW_ZIG=${findZig()}`,
  ];
  const system = [...toolchain, `-DLONGVIEW_TARGET=${target}`, '-DCMAKE_BUILD_TYPE=Release'];
  run('cmake', [
    '-S',
    'native',
    '-B',
    build,
    ...generator(build),
    ...system,
    ...options,
    '--log-level=WARNING',
  ]);
  return build;
}

need('cmake', 'CMake 3.25 or newer', 'cmake g++');
need(process.env.CXX ?? 'c++', 'a C++20 compiler (g++ 12 or newer)', 'cmake g++');

const parallel = ['--parallel', String(cpus().length)];
if (process.argv.includes('--test-sanitized')) {
  const sanitized = join(root, 'build', 'sanitized');
  // Without optimisation that takes long to compile; assertions on.
  const options = ['-DCMAKE_BUILD_TYPE=Debug', '-DCMAKE_CXX_FLAGS_DEBUG=-O1 -g', '-DLONGVIEW_SANITIZE=ON'];
  run('cmake', ['-S', 'native', '-B', sanitized, ...generator(sanitized), ...options, '--log-level=WARNING']);
  run('cmake', ['--build', sanitized, ...parallel, '--target', 'input_tests']);
  run('ctest', ['--test-dir', sanitized, '--output-on-failure', '-L', 'input']);
  process.exit(0);
}

if (process.argv.includes('--test-arm64')) {
  need('aarch64-linux-gnu-g++', 'a compiler for arm64', 'g++-aarch64-linux-gnu');
  need('qemu-aarch64-static', 'an emulator, to run what is for arm64', 'qemu-user-static');
  const arm64 = join(root, 'build', 'arm64');
  const target = ['-DCMAKE_SYSTEM_NAME=Linux', '-DCMAKE_SYSTEM_PROCESSOR=aarch64'];
  target.push('-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++');
  target.push('-DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64-static;-L;/usr/aarch64-linux-gnu');
  run('cmake', ['-S', 'native', '-B', arm64, ...generator(arm64), ...target, '--log-level=WARNING']);
  run('cmake', ['--build', arm64, ...parallel, '--target', 'portable_tests']);
  run('ctest', ['--test-dir', arm64, '--output-on-failure', '-L', 'portable']);
  process.exit(0);
}

if (process.argv.includes('--test-windows')) {
  need('wine', 'Wine, to run what is for Windows', 'wine wine64');
  process.env.WINEDEBUG ??= '-all';
  const windows = configureFor('win32-x64', [
    ...addon,
    '-DLONGVIEW_TESTS=ON',
    '-DCMAKE_CROSSCOMPILING_EMULATOR=wine',
  ]);
  run('cmake', ['--build', windows, ...parallel, '--target', 'portable_tests']);
  run('ctest', ['--test-dir', windows, '--output-on-failure', '-L', 'portable']);
  process.exit(0);
}

const target = process.argv.includes('--target')
  ? process.argv[process.argv.indexOf('--target') + 1]
  : undefined;
if (target) {
  const gpu = process.argv.includes('--cuda');
  const build = configureFor(target, [...addon, ...cudaOptions(gpu)]);
  run('cmake', [
    '--build',
    build,
    ...parallel,
    '--target',
    'longview_addon',
    ...(gpu ? ['longview_cuda'] : []),
  ]);
  process.exit(0);
}

const configure = ['-S', 'native', '-B', folder, ...generator(folder), '-DCMAKE_BUILD_TYPE=Release'];
configure.push(...addon);
const testGpu = process.argv.includes('--test-gpu');
const test = process.argv.includes('--test') || testGpu;
const cuda = process.argv.includes('--cuda') || testGpu;
configure.push(...cudaOptions(cuda));
run('cmake', [...configure, '--log-level=WARNING']);
run('cmake', [
  '--build',
  folder,
  ...parallel,
  ...(test ? [] : ['--target', 'longview_addon', ...(cuda ? ['longview_cuda'] : [])]),
]);
mkdirSync(join(root, 'dist'), { recursive: true });
copyFileSync(join(folder, 'longview.node'), join(root, 'dist', 'longview.node'));
if (cuda) copyFileSync(join(folder, 'longview_cuda.so'), join(root, 'dist', 'longview_cuda.so'));
const some = testGpu ? ['-L', 'gpu'] : [];
if (test) run('ctest', ['--test-dir', folder, '--output-on-failure', ...some]);

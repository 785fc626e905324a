/** Where this version has code for a GPU. */

/** Why there is none on this system, for whoever wants or expects one; undefined on Linux, where the engine looks for one itself. */
export function whyNoGpu(): string | undefined {
  if (process.platform === 'win32')
    return 'On Windows this version runs models on the CPU; inside WSL it can use an NVIDIA GPU.';
  return process.platform === 'darwin' ? 'On macOS this version runs models on the CPU.' : undefined;
}

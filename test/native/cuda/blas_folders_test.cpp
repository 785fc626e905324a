// Where cuBLASLt is looked for, and in which order.
#include <cstdlib>
#include <filesystem>
#include <string>

#include "check.h"
#include "cuda/blas_api.h"
#include "model/files.h"

using namespace longview;
namespace fs = std::filesystem;

TEST("toolkits that are named come before the wheels of the Pythons on PATH, newer Pythons first") {
  const files::Scratch scratch;
  const fs::path root = scratch.path();
  const fs::path toolkit = root / "toolkit", other = root / "other", environment = root / "venv", without = root / "plain";
  for (const fs::path& folder : {environment / "bin", environment / "lib/python3.11", environment / "lib/python3.9", environment / "lib/ruby", without / "bin", without / "lib/python3.12"}) fs::create_directories(folder);
  fs::create_symlink("/bin/true", environment / "bin/python3");
  setenv("CUDA_PATH", toolkit.c_str(), 1);
  setenv("CUDA_HOME", other.c_str(), 1);
  setenv("PATH", ((without / "bin").string() + "::" + (environment / "bin").string()).c_str(), 1);
  std::vector<fs::path> found = cuda::blas_folders();

  std::vector<fs::path> wanted;
  for (const fs::path& at : {toolkit, other})
    for (const char* part : {"lib64", "lib", "targets/x86_64-linux/lib"}) wanted.push_back(at / part);
  for (const char* python : {"python3.11", "python3.9"})
    for (const char* packages : {"site-packages", "dist-packages"})
      for (const char* part : {"nvidia/cu13/lib", "nvidia/cublas/lib"}) wanted.push_back(environment / "lib" / python / packages / part);
  std::erase_if(found, [](const fs::path& at) { return at.string().starts_with("/usr/local/cuda"); });  // of this machine
  for (const fs::path& at : found) std::printf("  %s\n", fs::relative(at, root).c_str());
  CHECK(found == wanted);
}

TEST_MAIN()

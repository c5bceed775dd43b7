/* SPDX-License-Identifier: Apache-2.0
 * How locations of GPU memory begin. In a build of upstream for GPUs this header brings the vendor's; programs that use only
 * host memory include it all the same. */

#ifndef CUDA_ALIKE_H
#define CUDA_ALIKE_H

#include <string>

/** "cuda:0" is the first GPU. */
inline const std::string GPU_PREFIX = "cuda:";

#endif

#!/usr/bin/env bash
# What wants an accelerator, on CIFAR-10: pre-train a ResNet-18 by SimSiam, compute its features,
# and fine-tune it on few labels; pre-train a WRN-28-2 and train it semi-supervised from 10 and 40
# labels; then, where there are weights of the folded MobileNetV2, standard active learning, SVPp and
# ASVP with it at 160 pixels.
#
#   benchmarks/accelerator.sh IMAGES OUT [EPOCHS [MOBILENET.npz]]
#
# IMAGES holds train.npy and test.npy, uint8 [n, 32, 32, 3], with train_labels.npy and
# test_labels.npy. EPOCHS of pre-training are 100 unless given; the paper's are 800.
set -euo pipefail
if (($# < 2 || $# > 4)); then
    echo "usage: $0 IMAGES OUT [EPOCHS [MOBILENET.npz]]" >&2
    exit 2
fi
images=$(realpath -m "$1") out=$(realpath -m "$2") epochs=${3:-100}
mobilenet=${4:+$(realpath -m "$4")}
cd "$(dirname "$0")/.."
data=(--images "$images/train.npy" --labels "$images/train_labels.npy"
    --test-images "$images/test.npy" --test-labels "$images/test_labels.npy")
simsiam=(--method simsiam --scale paper --epochs "$epochs" --dtype bfloat16 --monitor-every 10)
python3 -m benchmarks pretrain "${data[@]}" --encoder resnet18_cifar "${simsiam[@]}" \
    --out "$out/simsiam" --resume
python3 -m benchmarks features "${data[@]}" --encoder resnet18_cifar \
    --weights "$out/simsiam/encoder.npz" --out "$out/features"
python3 -m benchmarks finetune "${data[@]}" --encoder resnet18_cifar \
    --weights "$out/simsiam/encoder.npz" --scale cifar10 --dtype bfloat16 \
    --num-labels 100 500 2000 --seeds 3 --out "$out/finetune" --resume
python3 -m benchmarks pretrain "${data[@]}" --encoder wrn_28_2 "${simsiam[@]}" \
    --out "$out/wrn" --resume
python3 -m benchmarks as3l "${data[@]}" --encoder wrn_28_2 --scale gpu \
    --weights "$out/wrn/encoder.npz" --anchors cifar10 --out "$out/as3l" --resume
if [[ -n $mobilenet ]]; then
    python3 -m benchmarks asvp "${data[@]}" --encoder mobilenet_v2_folded --weights "$mobilenet" \
        --size 160 --scale cpu --budgets 200 200 200 200 200 --strategies margin --seeds 1 \
        --dtype bfloat16 --out "$out/asvp" --resume
fi

// viem and ethers as their users write them: connect, send, wait at 200 ms polling, watch pending logs, subscribe.
//
//   node suite.mjs http://127.0.0.1:8545 ws://127.0.0.1:8545 <private key for viem> <private key for ethers> [rounds]
//
// Prints one JSON object of checks; exit status 0 only when none failed. `rounds` transfers keep each client busy long
// enough for a leader to be killed meanwhile.
import assert from 'node:assert/strict'
import { ethers } from 'ethers'
import { createPublicClient, createWalletClient, defineChain, encodeFunctionData, http, parseAbi, webSocket } from 'viem'
import { privateKeyToAccount } from 'viem/accounts'

const [url, wsUrl, viemKey, ethersKey, roundsText] = process.argv.slice(2)
const rounds = Number(roundsText ?? 3)
const pollingInterval = 200
const abi = parseAbi([
  'function transfer(address to, uint256 amount) returns (bool)',
  'function balanceOf(address owner) view returns (uint256)',
  'event Transfer(address indexed from, address indexed to, uint256 amount)',
])
// A token assembled by hand: transfer, balanceOf, totalSupply, decimals; the deployer owns all of it.
const token =
  '0x6c0c9f2c9cd04674edea40000000335f5260405f20556100d46100235f396100d45ff35f3560e01c8063a9059cbb1461003557806370a082' +
  '311461009b57806318160ddd146100b1578063313ce567146100c5575b5f5ffd5b50602435335f5260405f2080548281106100315782900390' +
  '5560043560601b60601c5f5260405f208054820190555f5260043560601b60601c337fddf252ad1be2c89b69c2b068fc378daa952ba7f163c4' +
  'a11628f55a4df523b3ef60205fa360016100cd565b5060043560601b60601c5f5260405f20546100cd565b506c0c9f2c9cd04674edea400000' +
  '006100cd565b5060126100cd565b5f5260205ff3'
const someone = () => ethers.Wallet.createRandom().address
const results = {}

async function check(name, work) {
  const began = performance.now()
  try {
    const detail = await work()
    results[name] = { ok: true, ms: Math.round(performance.now() - began), ...detail }
  } catch (error) {
    results[name] = { ok: false, error: String(error?.stack ?? error) }
  }
}

async function until(condition, what, timeoutMs = 15_000) {
  const deadline = performance.now() + timeoutMs
  while (!(await condition())) {
    assert.ok(performance.now() < deadline, `${what}: not true after ${timeoutMs} ms`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]

async function withViem() {
  const probe = createPublicClient({ transport: http(url) })
  const chain = defineChain({
    id: await probe.getChainId(),
    name: 'flashblocks',
    nativeCurrency: { name: 'Ether', symbol: 'ETH', decimals: 18 },
    rpcUrls: { default: { http: [url], webSocket: [wsUrl] } },
    experimental_preconfirmationTime: pollingInterval,
  })
  const account = privateKeyToAccount(viemKey)
  const client = createPublicClient({ chain, transport: http(), pollingInterval, cacheTime: 0 })
  const wallet = createWalletClient({ account, chain, transport: http(), pollingInterval })
  const socket = createPublicClient({ chain, transport: webSocket(wsUrl), pollingInterval })

  await check('viem transfers', async () => {
    const to = someone()
    const took = []
    for (let turn = 1; turn <= rounds; turn++) {
      const began = performance.now()
      const hash = await wallet.sendTransaction({ to, value: 7n })
      let receipt = null
      await until(async () => (receipt = await client.getTransactionReceipt({ hash }).catch(() => null)), 'a receipt')
      took.push(performance.now() - began)
      assert.equal(receipt.status, 'success')
      assert.equal(await client.getBalance({ address: to, blockTag: 'pending' }), 7n * BigInt(turn))
    }
    return { median_ms: Math.round(median(took)) }
  })

  await check('viem waits', async () => {
    // Its own waiting looks again at every new block number, so it may take until the block is sealed.
    const hash = await wallet.sendTransaction({ to: someone(), value: 1n })
    const receipt = await client.waitForTransactionReceipt({ hash, pollingInterval, timeout: 15_000 })
    assert.equal(receipt.status, 'success')
  })

  await check('viem token, events and pending logs', async () => {
    const head = []
    const logs = []
    const heads = await socket.transport.subscribe({
      params: ['newHeads'], onData: (message) => head.push(message.result), onError: assert.ifError,
    })
    const pending = await socket.transport.subscribe({
      params: ['pendingLogs', {}], onData: (message) => logs.push(message.result), onError: assert.ifError,
    })
    const deployed = await client.waitForTransactionReceipt({
      hash: await wallet.deployContract({ abi, bytecode: token }), pollingInterval,
    })
    const address = deployed.contractAddress
    const watched = []
    const unwatch = client.watchContractEvent({
      address, abi, eventName: 'Transfer', onLogs: (found) => watched.push(...found), onError: assert.ifError,
    })
    const to = someone()
    const hash = await wallet.writeContract({ address, abi, functionName: 'transfer', args: [to, 123n] })
    const receipt = await client.waitForTransactionReceipt({ hash, pollingInterval })
    assert.equal(receipt.status, 'success')
    assert.equal(receipt.logs.length, 1)
    const balance = { address, abi, functionName: 'balanceOf', args: [to], blockTag: 'pending' }
    assert.equal(await client.readContract(balance), 123n)
    await until(() => logs.some((log) => log.transactionHash === hash), 'the pending log is pushed')
    await until(() => watched.some((log) => log.transactionHash === hash), 'the sealed log is polled')
    await until(() => head.length > 0, 'a new head is pushed')
    unwatch()
    await heads.unsubscribe()
    await pending.unsubscribe()
  })

  await check('viem sends and waits in one call', async () => {
    const took = []
    for (let turn = 0; turn < rounds; turn++) {
      const began = performance.now()
      const receipt = await wallet.sendTransactionSync({ to: someone(), value: 1n, timeout: 6_000 })
      took.push(performance.now() - began)
      assert.equal(receipt.status, 'success')
    }
    return { median_ms: Math.round(median(took)) }
  })

  await check('viem reads a revert', async () => {
    const data = encodeFunctionData({ abi, functionName: 'transfer', args: [someone(), 1n] })
    const code = '0x5f5ffd'
    const to = someone()
    await assert.rejects(
      client.call({ to, data, stateOverride: [{ address: to, code }], blockTag: 'pending' }), /revert/i)
  })
  await socket.transport.getRpcClient().then((rpc) => rpc.close())
}

async function withEthers() {
  const provider = new ethers.JsonRpcProvider(url, undefined, { pollingInterval, cacheTimeout: -1 })
  const socket = new ethers.WebSocketProvider(wsUrl)
  const wallet = new ethers.Wallet(ethersKey, provider)

  await check('ethers transfers', async () => {
    const to = someone()
    const took = []
    for (let turn = 1; turn <= rounds; turn++) {
      const nonce = await provider.getTransactionCount(wallet.address, 'pending')
      const began = performance.now()
      const sent = await wallet.sendTransaction({ to, value: 7n, nonce })
      let receipt = null
      await until(async () => (receipt = await provider.getTransactionReceipt(sent.hash)), 'a receipt')
      took.push(performance.now() - began)
      assert.equal(receipt.status, 1)
      assert.equal(await provider.getBalance(to, 'pending'), 7n * BigInt(turn))
      assert.equal(await provider.getTransactionCount(wallet.address, 'pending'), nonce + 1)
    }
    return { median_ms: Math.round(median(took)) }
  })

  await check('ethers waits', async () => {
    const sent = await wallet.sendTransaction({ to: someone(), value: 1n })
    const receipt = await sent.wait(1, 15_000)
    assert.equal(receipt.status, 1)
  })

  await check('ethers token and events', async () => {
    const heads = []
    const pending = []
    await socket.on('block', (number) => heads.push(number))
    await socket.on('pending', (hash) => pending.push(hash))
    const factory = new ethers.ContractFactory(['event Transfer(address indexed, address indexed, uint256)',
      'function transfer(address, uint256) returns (bool)', 'function balanceOf(address) view returns (uint256)'],
      token, wallet)
    const contract = await (await factory.deploy()).waitForDeployment()
    const events = []
    const listening = new ethers.Contract(await contract.getAddress(), contract.interface, socket)
    await listening.on('Transfer', (from, to, amount) => events.push(amount))
    const to = someone()
    const sent = await contract.transfer(to, 321n)
    let receipt = null
    await until(async () => (receipt = await provider.getTransactionReceipt(sent.hash)), 'a receipt')
    assert.equal(receipt.logs.length, 1)
    assert.equal(await contract.balanceOf(to, { blockTag: 'pending' }), 321n)
    await until(() => events.includes(321n), 'the sealed event is pushed')
    await until(() => heads.length > 0, 'a new head is pushed')
    await until(() => pending.includes(sent.hash), 'the pending transaction is pushed')
  })
  await socket.destroy()
  provider.destroy()
}

await withViem()
await withEthers()
console.log(JSON.stringify(results))
process.exit(Object.values(results).every((result) => result.ok) ? 0 : 1)

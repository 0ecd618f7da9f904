"""What each recorded transaction brings whom: worked out from the ledger's documentation, not by the adapter.

One line a row of the file: its place, type and result, the credit of a payment's destination, and how many balances of
accounts other than the sender rose in any other way, which is what goes to suspense.
"""

RECORDED = """\
0 XChainCreateClaimID tesSUCCESS: nothing | 0 strays
1 XChainCreateClaimID tesSUCCESS: nothing | 0 strays
2 NFTokenMint tesSUCCESS: nothing | 0 strays
3 NFTokenMint tesSUCCESS: nothing | 0 strays
4 OfferCancel tesSUCCESS: nothing | 0 strays
5 OfferCreate tesSUCCESS: nothing | 0 strays
6 OfferCreate tesSUCCESS: nothing | 5 strays
7 OfferCreate tesSUCCESS: nothing | 0 strays
8 Payment tesSUCCESS: 0.01 USD tag None | 1 strays
9 Payment tesSUCCESS: 0.01 USD tag None | 1 strays
10 Payment tesSUCCESS: 300 USD tag None | 6 strays
11 Payment tesSUCCESS: 100 USD tag None | 1 strays
12 Payment tesSUCCESS: 200 USD tag None | 0 strays
13 Payment tesSUCCESS: 0.2 USD tag None | 1 strays
14 Payment tesSUCCESS: 100000000 XRP tag None | 0 strays
15 TrustSet tesSUCCESS: nothing | 0 strays
16 Payment tesSUCCESS: 0.02 USD tag None | 1 strays
17 TrustSet tesSUCCESS: nothing | 0 strays
18 TrustSet tesSUCCESS: nothing | 0 strays
19 TrustSet tesSUCCESS: nothing | 0 strays
20 Payment tecPATH_PARTIAL: nothing | 0 strays
21 DepositPreauth tesSUCCESS: nothing | 0 strays
22 EscrowFinish tesSUCCESS: nothing | 1 strays
23 Payment tesSUCCESS: 10000000000 XRP tag None | 0 strays
24 SignerListSet tesSUCCESS: nothing | 0 strays
25 Payment tesSUCCESS: 120000000 XRP tag None | 0 strays
26 Payment tesSUCCESS: 120000000 XRP tag None | 0 strays
27 Payment tesSUCCESS: 400000000 XRP tag None | 0 strays
28 Payment tesSUCCESS: 800000000 XRP tag None | 0 strays
29 OfferCreate tesSUCCESS: nothing | 0 strays
30 AccountSet tesSUCCESS: nothing | 0 strays
31 Payment tesSUCCESS: 1700000000 XRP tag None | 0 strays
32 CheckCreate tesSUCCESS: nothing | 0 strays
33 DepositPreauth tesSUCCESS: nothing | 0 strays
34 OfferCreate tesSUCCESS: nothing | 3 strays
35 OfferCreate tesSUCCESS: nothing | 4 strays
36 OfferCreate tesSUCCESS: nothing | 0 strays
37 OfferCancel tesSUCCESS: nothing | 0 strays
38 Payment tesSUCCESS: 16 JPY tag None | 4 strays
39 Payment tesSUCCESS: 16 JPY tag None | 4 strays
40 OfferCancel tesSUCCESS: nothing | 0 strays
41 OfferCreate tesSUCCESS: nothing | 3 strays
42 OfferCreate tecUNFUNDED_OFFER: nothing | 0 strays
43 OfferCreate tesSUCCESS: nothing | 0 strays
44 OfferCreate tesSUCCESS: nothing | 2 strays
45 OfferCreate tesSUCCESS: nothing | 0 strays
46 OfferCreate tesSUCCESS: nothing | 0 strays
47 OfferCancel tesSUCCESS: nothing | 0 strays
48 OfferCancel tesSUCCESS: nothing | 0 strays
49 OfferCancel tesSUCCESS: nothing | 0 strays
50 Payment tecPATH_DRY: nothing | 0 strays
51 Payment tesSUCCESS: 9.980039920159681 USD tag None | 1 strays
52 Payment tesSUCCESS: 4456 XRP tag None | 0 strays
53 OfferCreate tesSUCCESS: nothing | 0 strays
54 Payment tesSUCCESS: 104169972 XRP tag 109735445 | 0 strays
55 OfferCreate tecUNFUNDED_OFFER: nothing | 0 strays
56 Payment tesSUCCESS: 0.001 USD tag None | 3 strays
57 OfferCreate tesSUCCESS: nothing | 3 strays
58 OfferCancel tesSUCCESS: nothing | 0 strays
59 Payment tesSUCCESS: nothing | 3 strays
60 Payment tesSUCCESS: nothing | 1 strays
61 Payment tesSUCCESS: nothing | 4 strays
62 Payment tesSUCCESS: 1 XRP tag None | 0 strays
63 OfferCreate tesSUCCESS: nothing | 0 strays
64 OfferCreate tesSUCCESS: nothing | 2 strays
65 OfferCreate tesSUCCESS: nothing | 0 strays
66 Payment tesSUCCESS: 25799 CSC tag 811921039 | 1 strays
67 OfferCreate tesSUCCESS: nothing | 2 strays
68 OfferCreate tesSUCCESS: nothing | 0 strays
69 OfferCreate tesSUCCESS: nothing | 4 strays
70 Payment tesSUCCESS: 1 XRP tag None | 0 strays
71 OfferCreate tesSUCCESS: nothing | 0 strays
72 OfferCreate tesSUCCESS: nothing | 0 strays
73 OfferCreate tesSUCCESS: nothing | 0 strays
74 OfferCreate tesSUCCESS: nothing | 0 strays
75 OfferCreate tesSUCCESS: nothing | 0 strays
76 OfferCreate tesSUCCESS: nothing | 0 strays
77 OfferCreate tesSUCCESS: nothing | 0 strays
78 OfferCreate tesSUCCESS: nothing | 0 strays
79 OfferCreate tesSUCCESS: nothing | 2 strays
80 OfferCreate tesSUCCESS: nothing | 0 strays
81 Payment tesSUCCESS: 1 XRP tag None | 0 strays
82 OfferCreate tesSUCCESS: nothing | 0 strays
83 OfferCreate tesSUCCESS: nothing | 0 strays
84 OfferCreate tesSUCCESS: nothing | 3 strays
85 Payment tesSUCCESS: 87 XRP tag 5000157 | 0 strays
86 OfferCreate tesSUCCESS: nothing | 3 strays
87 Payment tesSUCCESS: 88 XRP tag 1159 | 0 strays
88 Payment tesSUCCESS: 87 XRP tag 1000179 | 0 strays
89 OfferCancel tesSUCCESS: nothing | 0 strays
90 OfferCreate tesSUCCESS: nothing | 0 strays
91 Payment tecUNFUNDED_PAYMENT: nothing | 0 strays
92 OfferCreate tesSUCCESS: nothing | 0 strays
93 OfferCancel tesSUCCESS: nothing | 0 strays
94 Payment tesSUCCESS: 87 XRP tag 1111131 | 0 strays
95 OfferCreate tesSUCCESS: nothing | 0 strays
96 Payment tesSUCCESS: 87 XRP tag 75786 | 0 strays
97 OfferCancel tesSUCCESS: nothing | 0 strays
98 Payment tesSUCCESS: 89 XRP tag 1097 | 0 strays
99 OfferCancel tesSUCCESS: nothing | 0 strays
100 OfferCancel tesSUCCESS: nothing | 0 strays
101 OfferCreate tesSUCCESS: nothing | 0 strays
102 Payment tesSUCCESS: 45 XRP tag 40000137 | 0 strays
103 OfferCreate tesSUCCESS: nothing | 3 strays
104 OfferCancel tesSUCCESS: nothing | 0 strays
105 OfferCreate tesSUCCESS: nothing | 3 strays
106 OfferCreate tesSUCCESS: nothing | 0 strays
107 OfferCancel tesSUCCESS: nothing | 0 strays
108 Payment tesSUCCESS: 87 XRP tag 1111170 | 0 strays
109 OfferCreate tesSUCCESS: nothing | 0 strays
110 OfferCreate tesSUCCESS: nothing | 0 strays
111 Payment tesSUCCESS: 87 XRP tag 40000169 | 0 strays
112 OfferCreate tesSUCCESS: nothing | 3 strays
113 OfferCancel tesSUCCESS: nothing | 0 strays
114 Payment tesSUCCESS: 1 XRP tag 2017 | 0 strays
115 Payment tesSUCCESS: 174265552 XRP tag 388748 | 0 strays
116 Payment tesSUCCESS: 87 XRP tag 1149 | 0 strays
117 OfferCreate tesSUCCESS: nothing | 0 strays
118 OfferCreate tesSUCCESS: nothing | 2 strays
119 OfferCreate tesSUCCESS: nothing | 3 strays
120 OfferCancel tesSUCCESS: nothing | 0 strays
121 OfferCancel tesSUCCESS: nothing | 0 strays
122 Payment tesSUCCESS: 44 XRP tag 1000005 | 0 strays
123 OfferCreate tesSUCCESS: nothing | 0 strays
124 OfferCreate tesSUCCESS: nothing | 3 strays
125 Payment tesSUCCESS: 87 XRP tag 1000186 | 0 strays
126 OfferCreate tesSUCCESS: nothing | 3 strays
127 Payment tesSUCCESS: 44 XRP tag 1000027 | 0 strays
128 Payment tesSUCCESS: 45 XRP tag 1000134 | 0 strays
129 Payment tesSUCCESS: 89 XRP tag 1095 | 0 strays
130 OfferCreate tesSUCCESS: nothing | 2 strays
131 OfferCancel tesSUCCESS: nothing | 0 strays
132 Payment tesSUCCESS: 44 XRP tag 40000055 | 0 strays
133 OfferCreate tesSUCCESS: nothing | 0 strays
134 OfferCreate tesSUCCESS: nothing | 0 strays
135 OfferCreate tesSUCCESS: nothing | 0 strays
136 OfferCreate tesSUCCESS: nothing | 3 strays
137 OfferCancel tesSUCCESS: nothing | 0 strays
138 OfferCreate tesSUCCESS: nothing | 0 strays
139 OfferCreate tesSUCCESS: nothing | 0 strays
140 OfferCreate tesSUCCESS: nothing | 0 strays
141 OfferCreate tesSUCCESS: nothing | 3 strays
142 OfferCreate tesSUCCESS: nothing | 3 strays
143 OfferCreate tesSUCCESS: nothing | 0 strays
144 OfferCreate tesSUCCESS: nothing | 0 strays
145 Payment tesSUCCESS: 89 XRP tag 1077 | 0 strays
146 OfferCreate tesSUCCESS: nothing | 0 strays
147 OfferCancel tesSUCCESS: nothing | 0 strays
148 Payment tesSUCCESS: 88 XRP tag 1111170 | 0 strays
149 Payment tesSUCCESS: nothing | 2 strays
150 Payment tesSUCCESS: 7002 XRP tag 401236629 | 0 strays
151 OfferCreate tesSUCCESS: nothing | 3 strays
152 OfferCancel tesSUCCESS: nothing | 0 strays
153 Payment tesSUCCESS: 371457084 XRP tag 500444041 | 0 strays
154 Payment tesSUCCESS: 100000 DFC tag None | 1 strays
155 OfferCreate tesSUCCESS: nothing | 3 strays
156 OfferCancel tesSUCCESS: nothing | 0 strays
157 OfferCancel tesSUCCESS: nothing | 0 strays
158 OfferCreate tesSUCCESS: nothing | 0 strays
159 OfferCreate tesSUCCESS: nothing | 2 strays
160 OfferCreate tesSUCCESS: nothing | 3 strays
161 OfferCreate tesSUCCESS: nothing | 0 strays
162 OfferCreate tesSUCCESS: nothing | 0 strays
163 Payment tesSUCCESS: 88 XRP tag 1111208 | 0 strays
164 OfferCreate tesSUCCESS: nothing | 3 strays
165 Payment tesSUCCESS: nothing | 2 strays
166 Payment tesSUCCESS: 89 XRP tag 1139 | 0 strays
167 OfferCreate tesSUCCESS: nothing | 0 strays
168 Payment tesSUCCESS: 89 XRP tag 1065 | 0 strays
169 Payment tesSUCCESS: 89 XRP tag 1097 | 0 strays
170 OfferCreate tesSUCCESS: nothing | 3 strays
171 Payment tesSUCCESS: 87 XRP tag 1111135 | 0 strays
172 OfferCreate tesSUCCESS: nothing | 3 strays
173 Payment tesSUCCESS: nothing | 2 strays
174 AccountSet tesSUCCESS: nothing | 0 strays
175 Payment tesSUCCESS: 3750000 XRP tag 2471596944 | 0 strays
176 OfferCreate tesSUCCESS: nothing | 0 strays
177 OfferCreate tesSUCCESS: nothing | 0 strays
178 OfferCreate tesSUCCESS: nothing | 0 strays
179 OfferCreate tesSUCCESS: nothing | 0 strays
180 OfferCreate tesSUCCESS: nothing | 0 strays
181 PaymentChannelClaim tesSUCCESS: nothing | 0 strays
182 OfferCreate tesSUCCESS: nothing | 0 strays
183 OfferCreate tesSUCCESS: nothing | 0 strays
184 Payment tecPATH_DRY: nothing | 0 strays
185 Payment tecPATH_DRY: nothing | 0 strays
186 Payment tecPATH_DRY: nothing | 0 strays
187 Payment tecPATH_DRY: nothing | 0 strays
188 Payment tecPATH_DRY: nothing | 0 strays
189 Payment tecPATH_DRY: nothing | 0 strays
190 OfferCancel tesSUCCESS: nothing | 0 strays
191 OfferCancel tesSUCCESS: nothing | 0 strays
192 OfferCancel tesSUCCESS: nothing | 0 strays
193 OfferCancel tesSUCCESS: nothing | 0 strays
194 OfferCancel tesSUCCESS: nothing | 0 strays
195 OfferCancel tesSUCCESS: nothing | 0 strays
196 Payment tesSUCCESS: 1000000 XRP tag None | 0 strays
197 EnableAmendment tesSUCCESS: nothing | 0 strays
198 AMMClawback tesSUCCESS: nothing | 1 strays
199 AMMDeposit tesSUCCESS: nothing | 3 strays
200 AMMDeposit tesSUCCESS: nothing | 2 strays
201 AMMDeposit tesSUCCESS: nothing | 3 strays
202 AMMDeposit tesSUCCESS: nothing | 2 strays
203 AMMWithdraw tesSUCCESS: nothing | 2 strays
204 AMMWithdraw tesSUCCESS: nothing | 2 strays
205 AccountSet tesSUCCESS: nothing | 0 strays
206 AccountSet tesSUCCESS: nothing | 0 strays
207 AccountSet tesSUCCESS: nothing | 0 strays
208 Payment tecUNFUNDED_PAYMENT: nothing | 0 strays
209 Clawback tesSUCCESS: nothing | 0 strays
210 Clawback tesSUCCESS: nothing | 0 strays
211 Clawback tecNO_PERMISSION: nothing | 0 strays
212 CredentialAccept tesSUCCESS: nothing | 0 strays
213 CredentialCreate tesSUCCESS: nothing | 0 strays
214 DIDDelete tesSUCCESS: nothing | 0 strays
215 EnableAmendment tesSUCCESS: nothing | 0 strays
216 EnableAmendment tesSUCCESS: nothing | 0 strays
217 LoanBrokerCoverClawback tesSUCCESS: nothing | 2 strays
218 LoanBrokerCoverClawback tesSUCCESS: nothing | 0 strays
219 LoanBrokerCoverClawback tesSUCCESS: nothing | 0 strays
220 LoanBrokerCoverDeposit tesSUCCESS: nothing | 2 strays
221 LoanBrokerDelete tesSUCCESS: nothing | 0 strays
222 LoanBrokerSet tesSUCCESS: nothing | 0 strays
223 LoanDelete tecHAS_OBLIGATIONS: nothing | 0 strays
224 LoanManage tesSUCCESS: nothing | 0 strays
225 LoanPay tesSUCCESS: nothing | 3 strays
226 NFTokenAcceptOffer tecINSUFFICIENT_FUNDS: nothing | 0 strays
227 NFTokenAcceptOffer tesSUCCESS: nothing | 1 strays
228 NFTokenBurn tesSUCCESS: nothing | 0 strays
229 NFTokenCreateOffer tesSUCCESS: nothing | 0 strays
230 NFTokenMint tecNO_PERMISSION: nothing | 0 strays
231 NFTokenMint tesSUCCESS: nothing | 0 strays
232 OfferCreate tesSUCCESS: nothing | 0 strays
233 OfferCreate tesSUCCESS: nothing | 0 strays
234 OfferCreate tesSUCCESS: nothing | 900 strays
235 OracleSet tesSUCCESS: nothing | 0 strays
236 Payment tesSUCCESS: 2421826800 XRP tag None | 0 strays
237 Payment tesSUCCESS: 100 MPT tag None | 0 strays
238 Payment tesSUCCESS: 17366599.150289 5852646F67650000000000000000000000000000 tag 0 | 1 strays
239 PaymentChannelClaim tesSUCCESS: nothing | 0 strays
240 PaymentChannelCreate tesSUCCESS: nothing | 0 strays
241 PaymentChannelCreate tecUNFUNDED: nothing | 0 strays
242 PaymentChannelFund tesSUCCESS: nothing | 0 strays
243 PaymentChannelFund tecNO_ENTRY: nothing | 0 strays
244 SetHook tesSUCCESS: nothing | 0 strays
245 SetHook tesSUCCESS: nothing | 0 strays
246 SetRegularKey tesSUCCESS: nothing | 0 strays
247 SetRegularKey tesSUCCESS: nothing | 0 strays
248 SignerListSet tecINSUFFICIENT_RESERVE: nothing | 0 strays
249 UNLModify tesSUCCESS: nothing | 0 strays
250 VaultClawback tesSUCCESS: nothing | 0 strays
251 VaultDeposit tesSUCCESS: nothing | 2 strays
252 VaultSet tesSUCCESS: nothing | 0 strays
253 XChainAddAccountCreateAttestation tecXCHAIN_ACCOUNT_CREATE_PAST: nothing | 0 strays
254 XChainClaim tesSUCCESS: nothing | 1 strays
255 XChainClaim tecXCHAIN_CLAIM_NO_QUORUM: nothing | 0 strays
256 XChainCreateBridge tesSUCCESS: nothing | 0 strays
257 XChainCreateBridge tesSUCCESS: nothing | 0 strays
258 XChainCreateClaimID tecNO_ENTRY: nothing | 0 strays
259 XChainModifyBridge tesSUCCESS: nothing | 0 strays
260 XChainModifyBridge tecNO_ENTRY: nothing | 0 strays
261 NewEscrowCreate tesSUCCESS: nothing | 0 strays
262 TokenSwapPropose tesSUCCESS: nothing | 0 strays
"""
